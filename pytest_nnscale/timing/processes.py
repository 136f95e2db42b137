"""Processes of this machine: which of them are above this one, and what they have computed.

Both are known where there is /proc; elsewhere the parent alone is, and nobody is called idle.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")


class _Process(NamedTuple):
    parent: int
    cpu_s: float


@cache
def namespace() -> str:
    """Return in what process ids of this process mean something; empty where that is not known."""
    with suppress(OSError):
        return (_PROC / "self/ns/pid").readlink().name.strip("pid:[]")
    return ""


def ancestors() -> frozenset[int]:
    """Return the ids of the parent, its parent, and so on; the first process of all is nobody's."""
    found: list[int] = []
    pid = os.getppid()
    while pid > 1 and pid not in found:
        found.append(pid)
        process = _read(pid)
        pid = process.parent if process else 0
    return frozenset(found)


def cpu_s(pid: int) -> float | None:
    """Return the seconds that a process and all below it have computed; None where it is not known."""
    if _read(pid) is None:
        return None
    known = {}
    with suppress(OSError):
        for path in _PROC.iterdir():
            process = _read(int(path.name)) if path.name.isdigit() else None
            if process is not None:
                known[int(path.name)] = process
    family, before = {pid}, 0
    while len(family) > before:
        before = len(family)
        family |= {each for each, process in known.items() if process.parent in family}
    return sum(known[each].cpu_s for each in family if each in known)


def _read(pid: int) -> _Process | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # See proc(5): the name may hold anything, also ")". Times with those of children that ended.
    fields = text.rpartition(")")[2].split()
    ticks = sum(map(int, fields[11:15]))
    return _Process(int(fields[1]), ticks / os.sysconf("SC_CLK_TCK"))
