"""Threads that use torch during a run: a dispatch mode sees one thread only.

Sees threads that are started inside, and work handed to the thread pools of the standard library,
whose workers may have been started long before.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from pytest_nnscale.counting.watching import Place, Watch

# All that takes work in multiprocessing.pool, with the function as first argument.
POOL_METHODS = ("apply_async", "_map_async", "imap", "imap_unordered")


def _places() -> Iterator[Place]:
    yield threading.Thread, "start", _of_start
    yield ThreadPoolExecutor, "submit", _of_submit
    # A pool from before needs the module, and one made inside starts its threads there.
    if "multiprocessing.pool" in sys.modules:
        for name in POOL_METHODS:
            yield sys.modules["multiprocessing.pool"].Pool, name, _of_pool


# The names of threads that get work and use torch for it.
threads = Watch(_places)


def _of_start(start: Callable[..., Any]) -> Callable[..., Any]:
    def watched_start(thread: threading.Thread) -> None:
        run, witness = thread.run, _Witness()

        def watched_run() -> None:
            vars(thread).pop("run", None)
            with witness:
                run()

        if threads.watchers:
            thread.run = watched_run  # type: ignore[method-assign]
        start(thread)

    return watched_start


def _of_submit(submit: Callable[..., Any]) -> Callable[..., Any]:
    def watched_submit(pool: Any, work: Any, /, *args: Any, **kwargs: Any) -> Any:
        return submit(pool, _witnessed(work), *args, **kwargs)

    return watched_submit


def _of_pool(take: Callable[..., Any]) -> Callable[..., Any]:
    def watched_take(pool: Any, func: Any, *args: Any, **kwargs: Any) -> Any:
        here = isinstance(pool, sys.modules["multiprocessing.pool"].ThreadPool)
        return take(pool, _witnessed(func) if here else func, *args, **kwargs)

    return watched_take


def _witnessed(work: Callable[..., Any]) -> Callable[..., Any]:
    if not threads.watchers:
        return work
    witness = _Witness()

    def watched(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True  # a model's error is shown in the model
        if not witness.is_heard:
            return work(*args, **kwargs)
        with witness:
            return work(*args, **kwargs)

    return watched


class _Witness(TorchDispatchMode):
    """Tells those who watched when it was made that an operator ran in its thread, and lets it."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._watchers = (*threads.watchers,)

    @property
    def is_heard(self) -> bool:
        """Whether anyone of them still watches."""
        return any(one is other for one in threads.watchers for other in self._watchers)

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        threads.tell(threading.current_thread().name, self._watchers)
        return func(*args, **(kwargs or {}))
