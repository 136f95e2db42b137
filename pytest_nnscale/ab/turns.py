"""Turns: two processes time the same call, never both at once, and the order alternates.

::

    warm up      base head  base head  base head ...
    a block      base head | head base        a machine that drifts evenly favours neither
    a turn       samples that are dropped, until the machine has turned to this side, then those that count

"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple, Protocol

# A sample is a batch of calls that lasts this long at least: reading the clock is then no part of it.
_SAMPLE_S = 1e-3
# The other side has had the caches, and threads that slept are not yet where they will run: calls of
# 5 ms with two threads took twice as long at first, and were steady after 15 ms.
_DROPPED_S = 20e-3
_KEPT_S = 40e-3
# Of calls as long as this the first is as good as the next: settling is a small part of it.
_LONG_S = 0.1
_WARM_UP_SHARE = 0.2
# The median of fewer blocks follows a burst of half a second, such as another program's; so long calls
# get up to twice the time for as many.
_BLOCKS = 6


class Side(Protocol):
    """One of the two: it has a call ready, and times it when asked."""

    def take(self, samples: int, *, calls: int) -> Sequence[float]:
        """Return the seconds per call of some batches of calls; CannotMeasure where it fails."""


class Turns(NamedTuple):
    """The seconds of a call in each turn of both sides, in the order in which they were taken."""

    base: tuple[float, ...]
    head: tuple[float, ...]

    @property
    def log_ratio(self) -> float:
        """The logarithm of head's time by base's: the median of the blocks of two rounds."""
        logs = [math.log(h / b) for b, h in zip(self.base, self.head, strict=True)]
        return statistics.median(sum(logs[i : i + 2]) / 2 for i in range(0, len(logs), 2))

    @property
    def base_s(self) -> float:
        """The median of base's turns."""
        return statistics.median(self.base)

    @property
    def head_s(self) -> float:
        """The median of head's turns."""
        return statistics.median(self.head)


def take_turns(
    base: Side,
    head: Side,
    *,
    time_s: float,
    head_first: bool = False,
) -> Turns:
    """Let two sides time their call in turns until the calls have taken `time_s`.

    Where that is too few blocks it is up to twice the time, and one block whatever it takes. The
    errors of a side pass through.
    """
    sides = (head, base) if head_first else (base, head)
    estimates_s, spent_s = _warm_up(sides, time_s * _WARM_UP_SHARE)
    calls = max(1, math.ceil(_SAMPLE_S / min(estimates_s) * (1 - 1e-9)))
    dropped, kept = {}, {}
    for side, estimate_s in zip(sides, estimates_s, strict=True):
        dropped[side], kept[side] = _samples_of(calls * estimate_s)
    seconds: dict[Side, list[float]] = {base: [], head: []}
    while not seconds[base] or spent_s < time_s * (1 if len(seconds[base]) >= 2 * _BLOCKS else 2):
        for side in (*sides, *reversed(sides)):
            taken = side.take(dropped[side] + kept[side], calls=calls)
            spent_s += calls * sum(taken)
            seconds[side].append(statistics.median(taken[dropped[side] :]))
    return Turns(tuple(seconds[base]), tuple(seconds[head]))


def _samples_of(sample_s: float) -> tuple[int, int]:
    """Return how many samples of a turn are dropped, and how many are kept, by what each takes."""
    dropped = 0 if sample_s >= _LONG_S else math.ceil(_DROPPED_S / sample_s * (1 - 1e-9))
    return dropped, max(1, round(_KEPT_S / sample_s))


def _warm_up(sides: Sequence[Side], time_s: float) -> tuple[list[float], float]:
    """Call both until the last three of each agree within a tenth, or time is up.

    Return what a call of each takes, and what all of it took.
    """
    recent: list[list[float]] = [[] for _ in sides]
    spent_s = 0.0
    while True:
        for side, times in zip(sides, recent, strict=True):
            times[:] = [*times[-2:], *side.take(1, calls=1)]
            spent_s += times[-1]
        steady = all(len(times) == 3 and max(times) <= 1.1 * min(times) for times in recent)
        if steady or spent_s >= time_s:
            return [max(statistics.median(times), 1e-9) for times in recent], spent_s
