"""Energy: the joules of one call.

Counts: what the counters of the device gained over windows of many calls, the machine's idle
power included, divided by the calls.
Does not count: devices without a counter; a budget where there is none is unmeasured, never zero.
Error sources: the counter's step, widened into the interval; other load on the machine.
Reference: NVML's nvmlDeviceGetTotalEnergyConsumption, the kernel's powercap documentation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.power.counter import EnergyCounter, find_counters
from pytest_nnscale.timing.clock import Clock, WallClock
from pytest_nnscale.timing.interval import quantile_interval, required_samples, sample_quantile
from pytest_nnscale.units import JOULES, format_quantity


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
            remedy=f"{error.remedy}; --nnscale-require=energy makes its absence a failure",
            missing="energy",
        )
    windows = required_samples(0.5, confidence)
    window_s = max_time_s / (windows + 1)
    step_j = sum(counter.resolution_j for counter in found)
    samples, steps = [], []
    clock = clock or WallClock(device)
    try:
        # The first window warms up.
        for window in range(windows + 1):
            calls, gained_j = _window(call, found, clock, window_s)
            if window:
                samples.append(gained_j / calls)
                steps.append(step_j / calls)
    except CannotMeasure as error:
        return Measurement.nothing(Metric.ENERGY, reason=error.reason, remedy=error.remedy)
    except Exception as error:
        return Measurement.nothing(
            Metric.ENERGY,
            reason=f"the call cannot be repeated: {type(error).__name__}: {error}",
            remedy="hand the nnscale fixture a call that can run many times",
        )
    names = ", ".join(counter.name for counter in found)
    interval = quantile_interval(samples, 0.5, confidence)
    if min(samples) <= 0 or interval is None or not math.isfinite(max(samples)):
        return Measurement.nothing(
            Metric.ENERGY,
            reason=f"{names} did not move in {window_s:.2g} s "
            f"(its step is {format_quantity(step_j, JOULES)})",
            remedy="give it longer: --nnscale-max-time",
        )
    return Measurement(
        Metric.ENERGY,
        sample_quantile(samples, 0.5),
        max(0.0, interval[0] - max(steps)),
        interval[1] + max(steps),
        method=names,
        samples=tuple(samples),
        notes=(f"{windows} windows of {window_s:.2g} s by {names}, idle power included",),
    )


def _window(
    call: Callable[[], object], counters: Sequence[EnergyCounter], clock: Clock, window_s: float
) -> tuple[int, float]:
    """Call until a window is over; return the calls and the joules that the counters gained."""
    calls = 0
    start_s, start_j = clock.now_s(), sum(counter.read_j() for counter in counters)
    while not calls or clock.now_s() - start_s < window_s:
        call()
        calls += 1
    clock.now_s()
    return calls, sum(counter.read_j() for counter in counters) - start_j
