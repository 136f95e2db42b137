"""The collection of garbage, put off for a moment."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collected_later() -> Iterator[None]:
    """Have no collection come in a block: of what is made in it, nearly all lives on.

    A collection looks at every object of the process, which in one that has loaded torch takes
    longer than most blocks. And it frees cycles at a moment that depends on all that ran before.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
