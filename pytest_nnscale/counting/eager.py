"""Compiled code runs as it was written, for as long as anybody counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

_lock = threading.Lock()
_stances: list[AbstractContextManager[Any]] = []  # torch's own, taken by the first who counts
_counting = 0


@contextmanager
def forced_eager() -> Iterator[None]:
    """Force eager code in a block; what was there before comes back after the last of several.

    torch keeps one stance for the process, and blocks in two threads need not be nested.
    """
    global _counting
    with _lock:
        if not _counting:
            stance = torch.compiler.set_stance("force_eager")
            stance.__enter__()
            _stances.append(stance)
        _counting += 1
    try:
        yield
    finally:
        with _lock:
            _counting -= 1
            if not _counting:
                _stances.pop().__exit__(None, None, None)
