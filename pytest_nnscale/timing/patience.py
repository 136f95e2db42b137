"""Patience: how long one waits for others to end.

As long as some of them end, it goes on, up to `_AT_MOST` times as long. It ends early for what does
nothing at all, which may itself wait for something of ours, and at once for what outlasted one wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from pytest_nnscale.timing import processes
from pytest_nnscale.timing.hold import TEST, Hold

_AT_MOST = 3  # times `max_wait_s`, however many come and go
_SOON_S = 2.0  # whoever waits longer says so
_IDLE_S = 30.0
# Somebody who waits for a file lock looks at it again and again: half a percent of the time.
_IDLE_SHARE = 0.02
_LONGEST_PAUSE_S = 0.1
_BETWEEN_LOOKS_S = 1.0


class Patience:
    """One wait. `outlasted` are the tokens of what was still there when an earlier one ended."""

    def __init__(
        self,
        max_wait_s: float,
        *,
        outlasted: set[str],
        tell: Callable[[str], None],
        suspects: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        cpu_s: Callable[[int], float | None] = processes.cpu_s,
    ) -> None:
        self._max_wait_s = max_wait_s
        self._outlasted = outlasted
        self._tell = tell
        self._suspects = suspects
        self._clock, self._sleep, self._cpu_s = clock, sleep, cpu_s
        self._begun_s = self._since_s = clock()
        self._looked_s = -1.0
        self._tokens: frozenset[str] = frozenset()
        self._before: dict[str, tuple[float, float]] = {}  # by token: when, and what was computed
        self._told = ""
        self.first = ""  # what it waited for, to begin with
        self.idle: Hold | None = None
        self.in_vain = False  # for something that outlasted an earlier wait

    @property
    def until_s(self) -> float:
        """When it is over, should nobody end any more."""
        longest_s = self._begun_s + _AT_MOST * self._max_wait_s
        return min(self._since_s + self._max_wait_s, longest_s)

    @property
    def waited_s(self) -> float:
        """How long it took; not longer than was meant, however slow the machine."""
        return min(self._clock(), self.until_s) - self._begun_s

    @property
    def due(self) -> bool:
        """Whether it is time to look again, since looking disturbs who measures."""
        return self._looked_s < 0 or self._clock() - self._looked_s >= _BETWEEN_LOOKS_S

    def pauses(self) -> Iterator[None]:
        """Yield at once, and again after ever longer pauses until it is over."""
        pause_s = 0.001
        while True:
            yield
            left_s = self.until_s - self._clock()
            if left_s <= 0 or self.in_vain or self.idle is not None:
                return
            self._sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def look(self, in_the_way: Sequence[Hold]) -> None:
        """Take in what is in the way now."""
        self._looked_s = now_s = self._clock()
        tokens = frozenset(hold.token for hold in in_the_way)
        if self._tokens - tokens:
            self._since_s = now_s
        self._tokens = tokens
        if not in_the_way:
            return
        self.first = self.first or str(in_the_way[0])
        self.in_vain = bool(tokens & self._outlasted)
        if now_s - self._begun_s < _SOON_S:
            return
        told = f"waiting for {in_the_way[0]}"
        if told != self._told:
            self._tell(told)
        self._told = told
        if self._suspects:
            self.idle = next((hold for hold in in_the_way if self._is_idle(hold, now_s)), None)

    def close(self, in_the_way: Sequence[Hold] = ()) -> None:
        """End it, and remember what is still there."""
        self._outlasted.update(hold.token for hold in in_the_way)
        if self._told:
            self._tell("")
        self._told = ""

    def _is_idle(self, hold: Hold, now_s: float) -> bool:
        """Tell whether the process of a test has computed next to nothing for a while."""
        since_s, before_s = self._before.get(hold.token, (now_s, -1.0))
        if (
            hold.kind != TEST
            or hold.pid is None
            or (0 <= now_s - since_s < _IDLE_S and before_s >= 0)
        ):
            return False
        computed_s = self._cpu_s(hold.pid)
        if computed_s is None:
            return False
        self._before[hold.token] = now_s, computed_s
        return before_s >= 0 and computed_s - before_s < _IDLE_SHARE * (now_s - since_s)
