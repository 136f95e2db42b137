"""Samples of a call's duration: warm up, then take some until it is known what was asked."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.garbage import collected_later
from pytest_nnscale.timing.clock import Clock
from pytest_nnscale.timing.denormals import any_denormal
from pytest_nnscale.timing.interval import Interval, Looks, sample_quantile
from pytest_nnscale.timing.sequence import least_samples
from pytest_nnscale.timing.warming import WARM_UP_SHARE, warm_up
from pytest_nnscale.units import SECONDS, format_quantity, time_to_give

# A batch lasts this many ticks of the clock at least, so that a tick is 1 % of it at most.
TICKS = 100
# The median of a short call is taken over batches, so that about so many fill the time there is.
ENOUGH_SAMPLES = 5000
_MOST_SAMPLES = 100_000
# From one look at the interval to the next there is a tenth more samples.
_GROWTH = 0.1
# Without a limit it is enough to know the quantile this closely, on each side.
_CLOSE = 0.01
# Samples that decide against a call lie in so many seconds at least: what holds a machine up for a
# moment may hold up all samples of a shorter time, and no block shows that.
_TELLING_S = 0.5
# A limit, or the two ends of one that is itself not known exactly.
Limit = float | tuple[float, float]


@dataclass(frozen=True, slots=True)
class Samples:
    """Seconds per call, one for each batch of `calls_per_sample` calls, and where their quantile lies.

    `interval` is None where time allowed too few: `needed_s` then says how long it would take, by
    `estimate_s` for a call. `spent_s` is what the sampling took, without the warm-up; `steady` says
    whether that came to rest, `capped` that more samples than these are never taken, `denormal` that
    the output of a call holds denormal numbers.
    """

    seconds: tuple[float, ...]
    calls_per_sample: int
    interval: Interval | None
    estimate_s: float
    spent_s: float
    needed_s: float
    warm_up_calls: int
    steady: bool = True
    capped: bool = False
    denormal: bool = False


def sample(
    call: Callable[[], object],
    *,
    clock: Clock,
    max_time_s: float,
    quantile: float = 0.5,
    confidence: float = 0.99,
    limit_s: Limit | None = None,
    look: Callable[[], object] = lambda: None,
) -> Samples:
    """Time a call until its quantile surely lies on one side of a limit, or time is up.

    Without a limit, until the quantile is known within a hundredth. A fifth of the time at most
    warms up. Where it is clear beforehand that time does not suffice for an interval, no sample is
    taken. `look` is called now and then between two batches. Errors of the call pass through;
    CannotMeasure is raised where the clock is too coarse for the quantile.
    """
    warm = warm_up(call, clock, max_time_s * WARM_UP_SHARE)
    each_s = max(warm.estimate_s, clock.resolution_s)
    calls = _calls_in_a_batch(each_s, clock, max_time_s, quantile)
    least = least_samples(quantile, confidence)
    needed_s = least * calls * each_s
    left_s = max_time_s * (1 - WARM_UP_SHARE)
    denormal = bool(warm.denormal)
    if needed_s > left_s * (1 + 1e-9):
        return Samples(
            (),
            calls,
            None,
            warm.estimate_s,
            0.0,
            needed_s,
            warm.calls,
            warm.steady,
            False,
            denormal,
        )
    series = until_decided(
        lambda batches: clock.times_s(call, calls=calls, batches=batches),
        Looks(quantile, confidence),
        now_s=clock.now_s,
        least=least,
        time_s=left_s,
        tick_s=calls * clock.resolution_s,
        limit=limit_s,
        look=look,
    )
    if warm.denormal is False:
        # It may have come to them meanwhile, as what is multiplied over and over does.
        denormal = bool(any_denormal(call()))
    return Samples(
        tuple(series.samples),
        calls,
        series.interval,
        sample_quantile(series.samples, 0.5),
        series.spent_s,
        needed_s,
        warm.calls,
        warm.steady,
        series.capped,
        denormal,
    )


def _calls_in_a_batch(each_s: float, clock: Clock, max_time_s: float, quantile: float) -> int:
    """Return how many calls are timed together: of a quantile other than the median, one."""
    least_s = TICKS * clock.resolution_s
    if quantile == 0.5:
        batch_s = max(least_s, max_time_s / ENOUGH_SAMPLES)
        return max(1, math.ceil(batch_s / each_s * (1 - 1e-9)))
    if each_s < least_s * (1 - 1e-9):
        each, tick = (format_quantity(s, SECONDS) for s in (each_s, clock.resolution_s))
        raise CannotMeasure(
            f"a call of about {each} is too short for a clock that goes by {tick}: the mean of "
            f"several calls hides the p{100 * quantile:g} of single ones",
            remedy="have a call do more, or drop quantile=: the median of such calls can be told",
        )
    return 1


class Series(NamedTuple):
    """Samples, the interval of their quantile, and the seconds that they took together.

    It is `capped` where it was not decided when there were as many as are taken at most.
    """

    samples: list[float]
    interval: Interval | None
    spent_s: float
    capped: bool


def until_decided(
    take: Callable[[int], list[float]],
    looks: Looks,
    *,
    now_s: Callable[[], float],
    least: int,
    time_s: float,
    tick_s: float,
    limit: Limit | None,
    look: Callable[[], object],
) -> Series:
    """Take samples until their quantile surely lies on one side of a limit, or time is up.

    `take` is asked for a number of samples, of which each takes `tick_s` at least. All that goes on
    counts towards the time, also what is in no sample. That the quantile lies above the limit is
    believed of samples from some time alone. Garbage is not collected meanwhile.
    """
    samples: list[float] = []
    interval, spent_s, batches = None, 0.0, least
    gc.collect()
    with collected_later():
        begun_s = now_s()
        while batches > 0:
            samples += take(batches)
            look()
            gc.collect(0)  # what the calls left, not what was there before
            spent_s = now_s() - begun_s
            interval = looks.look(samples)
            if interval is not None and _is_decided(interval, limit, spent_s):
                return Series(samples, interval, spent_s, capped=False)
            each_s = max(spent_s / len(samples), tick_s)
            affordable = int((time_s - spent_s) / each_s + 1e-9)
            batches = min(
                max(1, int(_GROWTH * len(samples))), affordable, _MOST_SAMPLES - len(samples)
            )
    return Series(samples, interval, spent_s, capped=len(samples) >= _MOST_SAMPLES)


def time_for(sampling_s: float) -> float:
    """Return what to give in all, the warm-up included, for some time of sampling."""
    return time_to_give(sampling_s / (1 - WARM_UP_SHARE))


def _is_decided(interval: Interval, limit: Limit | None, spent_s: float) -> bool:
    if limit is None:
        middle = (interval.lower + interval.upper) / 2
        return interval.upper - interval.lower <= 2 * _CLOSE * middle
    low, high = limit if isinstance(limit, tuple) else (limit, limit)
    return interval.upper <= low or (interval.lower > high and spent_s >= _TELLING_S)
