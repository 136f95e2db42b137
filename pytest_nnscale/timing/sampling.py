"""Samples of a call's duration: warm up, then take some until it is known what was asked."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pytest_nnscale.timing.clock import Clock
from pytest_nnscale.timing.denormals import any_denormal
from pytest_nnscale.timing.interval import Interval, Looks, sample_quantile
from pytest_nnscale.timing.sequence import least_samples
from pytest_nnscale.workload import tensors_in

# A batch lasts this many ticks of the clock at least, so that a tick is 1 % of it at most.
TICKS = 100
# The median of a short call is taken over batches, so that about so many fill the time there is.
ENOUGH_SAMPLES = 5000
_MOST_SAMPLES = 100_000
WARM_UP_SHARE = 0.2
# From one look at the interval to the next there is a tenth more samples.
_GROWTH = 0.1
# Without a limit it is enough to know the quantile this closely, on each side.
_CLOSE = 0.01


@dataclass(frozen=True, slots=True)
class Samples:
    """Seconds per call, one for each batch of `calls_per_sample` calls, and where their quantile lies.

    `interval` is None where time allowed too few: `needed_s` then says how long it would take, by
    `estimate_s` for a call. `spent_s` is what the sampling took, without the warm-up; `denormal` says
    that the output of a call holds denormal numbers.
    """

    seconds: tuple[float, ...]
    calls_per_sample: int
    interval: Interval | None
    estimate_s: float
    spent_s: float
    needed_s: float
    warm_up_calls: int
    denormal: bool = False


def sample(
    call: Callable[[], object],
    *,
    clock: Clock,
    max_time_s: float,
    quantile: float = 0.5,
    confidence: float = 0.99,
    limit_s: float | None = None,
    look: Callable[[], object] = lambda: None,
) -> Samples:
    """Time a call until its quantile surely lies on one side of a limit, or time is up.

    Without a limit, until the quantile is known within a hundredth. A fifth of the time at most
    warms up. Where it is clear beforehand that time does not suffice for an interval, no sample is
    taken. `look` is called now and then between two batches. Errors of the call pass through.
    """
    estimate_s, warm_up_calls, denormal = warm_up(call, clock, max_time_s * WARM_UP_SHARE)
    each_s = max(estimate_s, clock.resolution_s)
    batch_s = TICKS * clock.resolution_s
    if quantile == 0.5:
        batch_s = max(batch_s, max_time_s / ENOUGH_SAMPLES)
    calls = max(1, math.ceil(batch_s / each_s * (1 - 1e-9)))
    least = least_samples(quantile, confidence)
    needed_s = least * calls * each_s
    left_s = max_time_s * (1 - WARM_UP_SHARE)
    if needed_s > left_s * (1 + 1e-9):
        return Samples((), calls, None, estimate_s, 0.0, needed_s, warm_up_calls, denormal)

    def take(batches: int) -> tuple[list[float], float]:
        seconds = clock.times_s(call, calls=calls, batches=batches)
        return seconds, sum(seconds) * calls

    looks = Looks(quantile, confidence)
    found = until_decided(
        take,
        looks,
        least=least,
        time_s=left_s,
        tick_s=calls * clock.resolution_s,
        limit=limit_s,
        look=look,
    )
    seconds, interval, spent_s = found
    each_s = sample_quantile(seconds, 0.5)
    return Samples(
        tuple(seconds), calls, interval, each_s, spent_s, needed_s, warm_up_calls, denormal
    )


def until_decided(
    take: Callable[[int], tuple[list[float], float]],
    looks: Looks,
    *,
    least: int,
    time_s: float,
    tick_s: float,
    limit: float | None,
    look: Callable[[], object],
) -> tuple[list[float], Interval | None, float]:
    """Take samples until their quantile surely lies on one side of a limit, or time is up.

    `take` is asked for a number of samples and returns them with the seconds that they took;
    `tick_s` is the least that one takes. Returns all samples, the interval of their quantile, and
    the seconds that they took together. Garbage is not collected meanwhile.
    """
    samples: list[float] = []
    interval, spent_s, batches = None, 0.0, least
    with _no_garbage_collection():
        while batches > 0:
            taken, took_s = take(batches)
            samples += taken
            spent_s += took_s
            look()
            gc.collect(0)  # what the calls left, not what was there before
            interval = looks.look(samples)
            if interval is not None and _is_decided(interval, limit):
                break
            each_s = max(spent_s / len(samples), tick_s)
            affordable = int((time_s - spent_s) / each_s + 1e-9)
            batches = min(
                max(1, int(_GROWTH * len(samples))), affordable, _MOST_SAMPLES - len(samples)
            )
    return samples, interval, spent_s


def time_to_give(seconds: float) -> float:
    """Round a time up to two digits, so that whoever gives it gives enough."""
    step = 10.0 ** (math.floor(math.log10(seconds)) - 1)
    return round(math.ceil(seconds / step * (1 - 1e-9)) * step, 12)


def time_for(sampling_s: float) -> float:
    """Return what to give in all, the warm-up included, for some time of sampling."""
    return time_to_give(sampling_s / (1 - WARM_UP_SHARE))


def _is_decided(interval: Interval, limit: float | None) -> bool:
    if limit is None:
        middle = (interval.lower + interval.upper) / 2
        return interval.upper - interval.lower <= 2 * _CLOSE * middle
    return interval.upper <= limit or interval.lower > limit


def warm_up(call: Callable[[], object], clock: Clock, max_time_s: float) -> tuple[float, int, bool]:
    """Call until three in a row agree within a tenth, or time is up.

    Return the median of the last three, how many there were, and whether the output of the last
    holds denormal numbers.
    """
    begun_s, calls = clock.now_s(), 0
    recent: list[float] = []
    while True:
        start_s = clock.now_s()
        output = call()
        end_s = clock.now_s()
        calls += 1
        recent = [*recent[-2:], end_s - start_s]
        steady = len(recent) == 3 and max(recent) <= 1.1 * min(recent)
        if steady or end_s - begun_s >= max_time_s or end_s == begun_s:
            denormal = any_denormal(tensors_in(output))
            return sorted(recent)[len(recent) // 2], calls, denormal


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
