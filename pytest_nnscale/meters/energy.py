"""Energy: the joules of one call.

Counts: what the counters of the device gained over windows of many calls, the machine's idle
power included, divided by the calls.
Does not count: devices without a counter; a budget where there is none is unmeasured, never zero.
Error sources: the counter's steps in joules and in time, which widen the interval; other load on
the machine.
Reference: NVML's nvmlDeviceGetTotalEnergyConsumption, the kernel's powercap documentation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.power.counter import EnergyCounter, find_counters
from pytest_nnscale.timing.clock import Clock, WallClock
from pytest_nnscale.timing.interval import quantile_interval, required_samples, sample_quantile
from pytest_nnscale.timing.sampling import time_to_give
from pytest_nnscale.units import JOULES, SECONDS, format_quantity


def measure_energy(
    call: Callable[[], object],
    *,
    device: str = "cpu",
    confidence: float = 0.99,
    max_time_s: float = 5.0,
    counters: Sequence[EnergyCounter] | None = None,
    clock: Clock | None = None,
) -> Measurement:
    """Measure the joules of a call by the counters of its device; never raises what the call does.

    The value is the median over windows of equal length, its interval that of the median, wider
    by the step of the counters. No counter, or one that did not move, measures nothing.
    """
    try:
        found = tuple(counters) if counters is not None else find_counters(device)
    except CannotMeasure as error:
        return Measurement.nothing(
            Metric.ENERGY,
            reason=error.reason,
            remedy=error.remedy,
            missing="energy",
        )
    windows = required_samples(0.5, confidence)
    window_s = max_time_s / (windows + 1)
    clock = clock or WallClock(device)
    taken: list[_Window] = []
    try:
        first = _window(call, found, clock, window_s)  # it warms up, and says how long calls are
        call_s = first.elapsed_s / first.calls
        if call_s > window_s * (1 + 1e-9):
            return _too_slow(call_s, windows)
        while len(taken) < windows:
            taken.append(_window(call, found, clock, window_s))
    except CannotMeasure as error:
        return Measurement.nothing(Metric.ENERGY, reason=error.reason, remedy=error.remedy)
    except Exception as error:
        return Measurement.nothing(
            Metric.ENERGY,
            reason=f"the call cannot be repeated: {type(error).__name__}: {error}",
            remedy="hand the nnscale fixture a call that can run many times",
        )
    samples = [sum(window.gained_j) / window.calls for window in taken]
    still = [
        counter
        for place, counter in enumerate(found)
        if any(not 0 < window.gained_j[place] < math.inf for window in taken)
    ]
    interval = quantile_interval(samples, 0.5, confidence)
    if still or not found or interval is None:
        names = ", ".join(counter.name for counter in still) or "no counter"
        step_j = sum(counter.resolution_j for counter in still)
        return Measurement.nothing(
            Metric.ENERGY,
            reason=f"{names} did not move in {window_s:.2g} s "
            f"(its step is {format_quantity(step_j, JOULES)})",
            remedy="give it longer: --nnscale-max-time",
        )
    unsure_j = max(_unsure_j(window, found) / window.calls for window in taken)
    names = ", ".join(counter.name for counter in found)
    return Measurement(
        Metric.ENERGY,
        sample_quantile(samples, 0.5),
        max(0.0, interval[0] - unsure_j),
        interval[1] + unsure_j,
        method=names,
        samples=tuple(samples),
        notes=(f"{windows} windows of {window_s:.2g} s by {names}, idle power included",),
    )


@dataclass(frozen=True, slots=True)
class _Window:
    """Some calls in a row: how long they took, and what each counter gained meanwhile."""

    calls: int
    elapsed_s: float
    gained_j: tuple[float, ...]


def _window(
    call: Callable[[], object], counters: Sequence[EnergyCounter], clock: Clock, window_s: float
) -> _Window:
    calls = 0
    start_s, start_j = clock.now_s(), [counter.read_j() for counter in counters]
    while not calls or clock.now_s() - start_s < window_s:
        call()
        calls += 1
    elapsed_s = clock.now_s() - start_s
    ends_j = [counter.read_j() for counter in counters]
    gains_j = tuple(end - start for start, end in zip(start_j, ends_j, strict=True))
    return _Window(calls, elapsed_s, gains_j)


def _unsure_j(window: _Window, counters: Sequence[EnergyCounter]) -> float:
    """Return what the counters may have been off by: a step, and what an update would bring."""
    return sum(
        counter.resolution_j + gained_j / window.elapsed_s * counter.resolution_s
        for counter, gained_j in zip(counters, window.gained_j, strict=True)
    )


def _too_slow(call_s: float, windows: int) -> Measurement:
    needed_s = time_to_give((windows + 1) * call_s)
    return Measurement.nothing(
        Metric.ENERGY,
        reason=f"{windows} windows and a warm-up of at least a call of "
        f"{format_quantity(call_s, SECONDS)} do not fit into the time given",
        remedy=f"give it longer: --nnscale-max-time={needed_s:g}",
    )
