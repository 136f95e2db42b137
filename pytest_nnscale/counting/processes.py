"""Processes that get work during a run: nothing that happens in them is seen.

Sees processes of multiprocessing and bare forks, work handed to process pools of the standard
library, whose workers may have been started long before, and commands that run Python. Other
commands are taken for what they nearly always are: compilers, and questions to the system.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

from pytest_nnscale.counting.threads import POOL_METHODS, replacing

_PYTHON = re.compile(r"(?:^|[\s'\"/\\])(?:python|pypy)[\d.]*(?:\.exe)?(?=$|[\s'\"])")
# `platform` asks this of the interpreter's own file.
_ASKS_ABOUT_FILES = frozenset({"file", "which", "where", "ldd", "otool"})


@contextmanager
def processes_watched(given_work: dict[str, None]) -> Iterator[None]:
    """Note in `given_work` the name of every process or pool that gets work inside."""
    starting: list[BaseProcess] = []

    def of_start(start: Callable[..., Any]) -> Callable[..., Any]:
        def watched_start(process: BaseProcess) -> None:
            given_work.setdefault(process.name)
            starting.append(process)
            try:
                start(process)
            finally:
                starting.pop()

        return watched_start

    def of_fork(fork: Callable[[], int]) -> Callable[[], int]:
        def watched_fork() -> int:
            if not starting:  # a process of multiprocessing has a name of its own
                given_work.setdefault("os.fork")
            return fork()

        return watched_fork

    def of_popen(init: Callable[..., None]) -> Callable[..., None]:
        def watched_init(popen: Any, args: Any, *rest: Any, **kwargs: Any) -> None:
            if _runs_python(args, kwargs.get("executable")):
                given_work.setdefault("python")
            init(popen, args, *rest, **kwargs)

        return watched_init

    def of_pool(take: Callable[..., Any]) -> Callable[..., Any]:
        def watched_take(pool: Any, *args: Any, **kwargs: Any) -> Any:
            pools = sys.modules.get("multiprocessing.pool")
            if pools is None or not isinstance(pool, pools.ThreadPool):
                given_work.setdefault(type(pool).__name__)
            return take(pool, *args, **kwargs)

        return watched_take

    with ExitStack() as replaced:
        replaced.enter_context(replacing(BaseProcess, "start", of_start))
        if hasattr(os, "fork"):
            replaced.enter_context(replacing(os, "fork", of_fork))
        replaced.enter_context(replacing(subprocess.Popen, "__init__", of_popen))
        # A pool from before needs its module, and one made inside starts its processes there.
        if "concurrent.futures.process" in sys.modules:
            executor = sys.modules["concurrent.futures.process"].ProcessPoolExecutor
            replaced.enter_context(replacing(executor, "submit", of_pool))
        if "multiprocessing.pool" in sys.modules:
            pool = sys.modules["multiprocessing.pool"].Pool
            for name in POOL_METHODS:
                replaced.enter_context(replacing(pool, name, of_pool))
        yield


def _runs_python(args: Any, executable: Any) -> bool:
    try:
        one = isinstance(args, str | bytes | os.PathLike)
        words = [os.fsdecode(word) for word in ([args] if one else args)]
        if executable is not None:
            words.append(os.fsdecode(executable))
    except TypeError:
        return False  # Popen will refuse it
    if words and os.path.basename(words[0]) in _ASKS_ABOUT_FILES:  # noqa: PTH119
        return False
    return any(sys.executable in word or _PYTHON.search(word) for word in words)
