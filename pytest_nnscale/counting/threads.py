"""Threads that use torch during a run: a dispatch mode sees one thread only.

Sees threads that are started inside, and work handed to the thread pools of the standard library,
whose workers may have been started long before.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

# All that takes work in multiprocessing.pool, with the function as first argument.
POOL_METHODS = ("apply_async", "_map_async", "imap", "imap_unordered")


@contextmanager
def threads_watched(used_torch: dict[str, None]) -> Iterator[None]:
    """Note in `used_torch` the name of every thread that gets work inside and uses torch for it."""
    watching = True

    def witness() -> _Witness:
        name = threading.current_thread().name
        return _Witness(lambda: used_torch.setdefault(name) if watching else None)

    def witnessed(work: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True  # a model's error is shown in the model
            if not watching:
                return work(*args, **kwargs)
            with witness():
                return work(*args, **kwargs)

        return watched

    def of_start(start: Callable[..., Any]) -> Callable[..., Any]:
        def watched_start(thread: threading.Thread) -> None:
            run = thread.run

            def watched_run() -> None:
                del thread.run
                with witness():
                    run()

            if watching:
                thread.run = watched_run  # type: ignore[method-assign]
            start(thread)

        return watched_start

    def of_submit(submit: Callable[..., Any]) -> Callable[..., Any]:
        def watched_submit(pool: Any, work: Any, /, *args: Any, **kwargs: Any) -> Any:
            return submit(pool, witnessed(work), *args, **kwargs)

        return watched_submit

    def of_pool(take: Callable[..., Any]) -> Callable[..., Any]:
        def watched_take(pool: Any, func: Any, *args: Any, **kwargs: Any) -> Any:
            here = isinstance(pool, sys.modules["multiprocessing.pool"].ThreadPool)
            return take(pool, witnessed(func) if here else func, *args, **kwargs)

        return watched_take

    try:
        with ExitStack() as replaced:
            replaced.enter_context(replacing(threading.Thread, "start", of_start))
            replaced.enter_context(replacing(ThreadPoolExecutor, "submit", of_submit))
            # A pool from before needs the module, and one made inside starts its threads there.
            if "multiprocessing.pool" in sys.modules:
                pool = sys.modules["multiprocessing.pool"].Pool
                for name in POOL_METHODS:
                    replaced.enter_context(replacing(pool, name, of_pool))
            yield
    finally:
        watching = False


@contextmanager
def replacing(
    owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Have a function of a module or class stand aside for one made from it."""
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(make(original)))
    try:
        yield
    finally:
        setattr(owner, name, original)


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
