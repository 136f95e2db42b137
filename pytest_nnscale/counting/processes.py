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
from multiprocessing.process import BaseProcess
from typing import Any

from pytest_nnscale.counting.threads import POOL_METHODS
from pytest_nnscale.counting.watching import Place, Watch

_PYTHON = re.compile(r"(?:^|[\s'\"/\\])(?:python|pypy)[\d.]*(?:\.exe)?(?=$|[\s'\"])")
# `platform` asks this of the interpreter's own file.
_ASKS_ABOUT_FILES = frozenset({"file", "which", "where", "ldd", "otool"})


_starting: list[BaseProcess] = []


def _places() -> Iterator[Place]:
    yield BaseProcess, "start", _of_start
    if hasattr(os, "fork"):
        yield os, "fork", _of_fork
    yield subprocess.Popen, "__init__", _of_popen
    # A pool from before needs its module, and one made inside starts its processes there.
    if "concurrent.futures.process" in sys.modules:
        yield sys.modules["concurrent.futures.process"].ProcessPoolExecutor, "submit", _of_pool
    if "multiprocessing.pool" in sys.modules:
        for name in POOL_METHODS:
            yield sys.modules["multiprocessing.pool"].Pool, name, _of_pool


# The names of processes and pools that get work.
processes = Watch(_places)


def _of_start(start: Callable[..., Any]) -> Callable[..., Any]:
    def watched_start(process: BaseProcess) -> None:
        processes.tell(process.name)
        _starting.append(process)
        try:
            start(process)
        finally:
            _starting.pop()

    return watched_start


def _of_fork(fork: Callable[[], int]) -> Callable[[], int]:
    def watched_fork() -> int:
        if not _starting:  # a process of multiprocessing has a name of its own
            processes.tell("os.fork")
        return fork()

    return watched_fork


def _of_popen(init: Callable[..., None]) -> Callable[..., None]:
    def watched_init(popen: Any, args: Any, *rest: Any, **kwargs: Any) -> None:
        if _runs_python(args, kwargs.get("executable")):
            processes.tell("python")
        init(popen, args, *rest, **kwargs)

    return watched_init


def _of_pool(take: Callable[..., Any]) -> Callable[..., Any]:
    def watched_take(pool: Any, *args: Any, **kwargs: Any) -> Any:
        pools = sys.modules.get("multiprocessing.pool")
        if pools is None or not isinstance(pool, pools.ThreadPool):
            processes.tell(type(pool).__name__)
        return take(pool, *args, **kwargs)

    return watched_take


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
