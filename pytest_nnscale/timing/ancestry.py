"""Ancestry: the holds of the tests below which this process runs, for which it must not wait.

A process learns of them from an environment variable; one that got a fresh environment, by the ids of
the processes above it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pytest_nnscale.timing.hold import Hold

# In JSON, the folder and the holds of the tests below which a process runs, the outermost first.
VARIABLE = "PYTEST_NNSCALE_HOLDS"


def inherited() -> tuple[Path | None, list[Hold]]:
    """Return the holds below which this process runs, and the folder in which they stand."""
    try:
        told = json.loads(os.environ[VARIABLE])
    except (KeyError, ValueError):
        return None, []
    if not isinstance(told, list) or len(told) < 2 or not all(isinstance(t, str) for t in told):
        return None, []
    folder, names = Path(told[0]), told[1:]
    if not (folder.is_absolute() and folder.is_dir() and all(map(Hold.is_meant, names))):
        return None, []
    return folder, [Hold(name) for name in names]


@contextmanager
def told_below(folder: Path, chain: Sequence[Hold]) -> Iterator[None]:
    """Let processes that start meanwhile know what they run below."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = json.dumps([str(folder), *(hold.file_name for hold in chain)])
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before
