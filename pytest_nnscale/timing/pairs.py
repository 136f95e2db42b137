"""Two calls that take turns: the ratio of their durations, which a drift of the machine leaves alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pytest_nnscale.timing.clock import Batch, Clock
from pytest_nnscale.timing.denormals import any_denormal
from pytest_nnscale.timing.interval import Interval, Looks
from pytest_nnscale.timing.sampling import ENOUGH_SAMPLES, TICKS, until_decided
from pytest_nnscale.timing.sequence import least_samples
from pytest_nnscale.timing.warming import WARM_UP_SHARE, warm_up


@dataclass(frozen=True, slots=True)
class Ratios:
    """How many times longer one call took than another, turn by turn, and where the median lies.

    `new_s` and `old_s` are the seconds per call of each, in the same order; in each turn there were
    `new_calls` and `old_calls`. `interval` is None where time allowed too few turns: `needed_s` then
    says how long it would take. `spent_s` is what the turns took. `steady`, `capped` and `denormal`
    are as they are for samples of one call.
    """

    ratios: tuple[float, ...]
    new_s: tuple[float, ...]
    old_s: tuple[float, ...]
    interval: Interval | None
    needed_s: float
    spent_s: float = 0.0
    new_calls: int = 1
    old_calls: int = 1
    steady: bool = True
    capped: bool = False
    denormal: bool = False


def sample_ratio(
    new: Callable[[], object],
    old: Callable[[], object],
    *,
    clock: Clock,
    max_time_s: float,
    confidence: float = 0.99,
    limit: float | None = None,
    look: Callable[[], object] = lambda: None,
) -> Ratios:
    """Time two calls in turns until the median of their ratio surely lies on one side of a limit.

    In every second turn the other goes first. Without a limit, until it is known within a
    hundredth; or until time is up. Errors of the calls pass through.
    """
    share_s = max_time_s * WARM_UP_SHARE / 2
    warm = [warm_up(call, clock, share_s) for call in (new, old)]
    each_s = [max(of.estimate_s, clock.resolution_s) for of in warm]
    left_s = max_time_s * (1 - WARM_UP_SHARE)
    batch_s = max(TICKS * clock.resolution_s, max_time_s / ENOUGH_SAMPLES / 2)
    calls = [max(1, math.ceil(batch_s / each * (1 - 1e-9))) for each in each_s]
    least = least_samples(0.5, confidence)
    needed_s = least * sum(number * each for number, each in zip(calls, each_s, strict=True))
    known: dict[str, Any] = {
        "needed_s": needed_s,
        "new_calls": calls[0],
        "old_calls": calls[1],
        "steady": all(of.steady for of in warm),
        "denormal": any(of.denormal for of in warm),
    }
    if needed_s > left_s * (1 + 1e-9):
        return Ratios((), (), (), None, **known)
    turns = _Turns(Batch(new, calls[0]), Batch(old, calls[1]), clock)
    series = until_decided(
        turns.take,
        Looks(0.5, confidence),
        now_s=clock.now_s,
        least=least,
        time_s=left_s,
        tick_s=sum(calls) * clock.resolution_s,
        limit=limit,
        look=look,
    )
    if not known["denormal"]:
        ends = [
            any_denormal(call())
            for call, of in zip((new, old), warm, strict=True)
            if of.denormal is False
        ]
        known["denormal"] = any(ends)
    return Ratios(
        tuple(series.samples),
        tuple(turns.new_s),
        tuple(turns.old_s),
        series.interval,
        spent_s=series.spent_s,
        capped=series.capped,
        **known,
    )


class _Turns:
    """Turns of two calls: what each took, in the order of the turns."""

    def __init__(self, new: Batch, old: Batch, clock: Clock) -> None:
        self._new, self._old, self._clock = new, old, clock
        self.new_s: list[float] = []
        self.old_s: list[float] = []

    def take(self, turns: int) -> list[float]:
        """Take some turns more, asked for all at once, and return the ratio of each."""
        first = len(self.new_s)
        new_first = [turn % 2 == 1 for turn in range(first, first + turns)]
        pairs = [(self._new, self._old) if new else (self._old, self._new) for new in new_first]
        seconds = self._clock.turns_s([batch for pair in pairs for batch in pair])
        for new, one, other in zip(new_first, seconds[::2], seconds[1::2], strict=True):
            self.new_s.append(one if new else other)
            self.old_s.append(other if new else one)
        least_s = self._clock.resolution_s
        taken = zip(self.new_s[first:], self.old_s[first:], strict=True)
        return [max(one, least_s) / max(other, least_s) for one, other in taken]
