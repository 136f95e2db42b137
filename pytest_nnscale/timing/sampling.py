"""Samples of a call's duration: warm up, fix their number, then take them."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pytest_nnscale.timing.clock import Clock

# A batch lasts this many ticks of the clock at least, so that a tick is 1 % of it at most.
_TICKS = 100
_MOST_SAMPLES = 1000
_WARM_UP_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Samples:
    """Seconds per call, one for each batch of `calls_per_sample` calls.

    Empty where time allowed fewer than the least number asked for: `affordable` then says how many
    it would have been, and `estimate_s` what one call takes.
    """

    seconds: tuple[float, ...]
    calls_per_sample: int
    affordable: int
    estimate_s: float


def sample(call: Callable[[], object], *, clock: Clock, max_time_s: float, least: int) -> Samples:
    """Time a call `least` times or more within about `max_time_s`, or not at all.

    Calls that become slower after the warm-up take longer, by as much as they slow down.
    A fifth of the time warms up and estimates. The number of samples is fixed from that estimate
    before the first is taken, since the interval of a fixed number is not valid for one that was
    stopped when it looked good.
    """
    estimate_s = _warm_up(call, clock, max_time_s * _WARM_UP_SHARE)
    batch = max(1, math.ceil(_TICKS * clock.resolution_s / max(estimate_s, clock.resolution_s)))
    left_s = max_time_s * (1 - _WARM_UP_SHARE)
    affordable = int(left_s / (batch * max(estimate_s, clock.resolution_s)) + 1e-9)
    if affordable < least:
        return Samples((), batch, affordable, estimate_s)
    seconds = []
    with _no_garbage_collection():
        for _ in range(min(max(affordable, least), max(_MOST_SAMPLES, least))):
            start_s = clock.now_s()
            for _ in range(batch):
                call()
            seconds.append((clock.now_s() - start_s) / batch)
    return Samples(tuple(seconds), batch, affordable, estimate_s)


def time_to_give(seconds: float) -> float:
    """Round a time up to two digits, so that whoever gives it gives enough."""
    step = 10.0 ** (math.floor(math.log10(seconds)) - 1)
    return round(math.ceil(seconds / step * (1 - 1e-9)) * step, 12)


def _warm_up(call: Callable[[], object], clock: Clock, max_time_s: float) -> float:
    """Call until three in a row agree within a tenth, or time is up; return the median of the last three."""
    begun_s = clock.now_s()
    recent: list[float] = []
    while True:
        start_s = clock.now_s()
        call()
        end_s = clock.now_s()
        recent = [*recent[-2:], end_s - start_s]
        steady = len(recent) == 3 and max(recent) <= 1.1 * min(recent)
        if steady or end_s - begun_s >= max_time_s or end_s == begun_s:
            return sorted(recent)[len(recent) // 2]


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
