"""Two calls that take turns: the ratio of their durations, which a drift of the machine leaves alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pytest_nnscale.timing.clock import Clock
from pytest_nnscale.timing.interval import Interval, Looks
from pytest_nnscale.timing.sampling import (
    ENOUGH_SAMPLES,
    TICKS,
    WARM_UP_SHARE,
    until_decided,
    warm_up,
)
from pytest_nnscale.timing.sequence import least_samples


@dataclass(frozen=True, slots=True)
class Ratios:
    """How many times longer one call took than another, turn by turn, and where the median lies.

    `new_s` and `old_s` are the seconds per call of each, in the same order; `interval` is None
    where time allowed too few turns: `needed_s` then says how long it would take.
    """

    ratios: tuple[float, ...]
    new_s: tuple[float, ...]
    old_s: tuple[float, ...]
    interval: Interval | None
    needed_s: float


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
    each_s = [max(warm_up(call, clock, share_s)[0], clock.resolution_s) for call in (new, old)]
    left_s = max_time_s * (1 - WARM_UP_SHARE)
    batch_s = max(TICKS * clock.resolution_s, max_time_s / ENOUGH_SAMPLES / 2)
    calls = [max(1, math.ceil(batch_s / each * (1 - 1e-9))) for each in each_s]
    turn_s = sum(number * each for number, each in zip(calls, each_s, strict=True))
    least = least_samples(0.5, confidence)
    if least * turn_s > left_s * (1 + 1e-9):
        return Ratios((), (), (), None, least * turn_s)
    new_s: list[float] = []
    old_s: list[float] = []

    def take(turns: int) -> tuple[list[float], float]:
        begun_s = clock.now_s()
        for _ in range(turns):
            sides = [(new, calls[0], new_s), (old, calls[1], old_s)]
            for call, number, seconds in sides if len(new_s) % 2 else reversed(sides):
                seconds += clock.times_s(call, calls=number, batches=1)
        taken = zip(new_s[-turns:], old_s[-turns:], strict=True)
        least_s = clock.resolution_s
        ratios = [max(one, least_s) / max(other, least_s) for one, other in taken]
        return ratios, clock.now_s() - begun_s

    ratios, interval, spent_s = until_decided(
        take,
        Looks(0.5, confidence),
        least=least,
        time_s=left_s,
        tick_s=sum(calls) * clock.resolution_s,
        limit=limit,
        look=look,
    )
    return Ratios(tuple(ratios), tuple(new_s), tuple(old_s), interval, spent_s)
