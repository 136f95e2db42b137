"""Threads started during a run that use torch: a dispatch mode sees one thread only."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def threads_watched(used_torch: dict[str, None]) -> Iterator[None]:
    """Note in `used_torch` the name of every thread that is started inside and uses torch."""
    start = threading.Thread.start
    watching = True

    @functools.wraps(start)
    def watched_start(thread: threading.Thread) -> None:
        run = thread.run

        def watched_run() -> None:
            del thread.run
            with _Witness(lambda: used_torch.setdefault(thread.name) if watching else None):
                run()

        if watching:
            thread.run = watched_run  # type: ignore[method-assign]
        start(thread)

    threading.Thread.start = watched_start  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        watching = False
        threading.Thread.start = start  # type: ignore[method-assign]


class _Witness(TorchDispatchMode):
    """Tells that an operator ran in its thread, and lets it run."""

    supports_higher_order_operators = True

    def __init__(self, tell: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tell = tell

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self._tell()
        return func(*args, **(kwargs or {}))
