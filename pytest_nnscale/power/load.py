"""Load: CPU time that other processes used on this machine meanwhile, as far as Linux tells."""

from __future__ import annotations

import os
from pathlib import Path

_STAT = Path("/proc/stat")
# The fields of the first line that are work: user, nice, system, irq, softirq, steal.
_WORK = (0, 1, 2, 5, 6, 7)


class Load:
    """CPU time of others, since this was made."""

    def __init__(self, stat: Path = _STAT) -> None:
        self._stat = stat
        self._all_s, self._own_s = self._spent_s(), _own_s()

    def others_s(self) -> float | None:
        """Return the seconds of CPU that all but this process and its children used; None if unknown."""
        all_s = self._spent_s()
        if all_s is None or self._all_s is None:
            return None
        return max(0.0, all_s - self._all_s - (_own_s() - self._own_s))

    def _spent_s(self) -> float | None:
        try:
            fields = self._stat.read_text().split("\n", 1)[0].split()[1:]
            return sum(int(fields[place]) for place in _WORK) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError, AttributeError):
            return None


def _own_s() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])
