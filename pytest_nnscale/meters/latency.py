"""Latency: the time of one call.

Counts: wall-clock seconds of a call, with the device's queue empty before and after; the stated
quantile over calls, the median unless told otherwise.
Does not count: the first calls, which warm up; garbage collection, which is held off meanwhile.
Error sources: other load on the machine, clock frequency, and the dependence of neighbouring
samples, which makes the interval narrower than it should be.
Reference: pytest_nnscale.timing.interval.
"""

from __future__ import annotations

from collections.abc import Callable

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.timing.clock import Clock, WallClock
from pytest_nnscale.timing.interval import quantile_interval, required_samples, sample_quantile
from pytest_nnscale.timing.sampling import Samples, sample, time_to_give
from pytest_nnscale.units import SECONDS, format_quantity


def measure_latency(
    call: Callable[[], object],
    *,
    quantile: float = 0.5,
    limit_s: float | None = None,
    confidence: float = 0.99,
    max_time_s: float = 5.0,
    clock: Clock | None = None,
    device: str = "cpu",
) -> Measurement:
    """Time a call in seconds, with the interval of its quantile; never raises what the call does.

    Where `max_time_s` does not suffice for as many calls as the interval needs, nothing is
    measured, and the reason says how long it would take.
    """
    least, clock = required_samples(quantile, confidence), clock or WallClock(device)
    try:
        taken = sample(call, clock=clock, max_time_s=max_time_s, least=least)
    except CannotMeasure as error:
        return Measurement.nothing(Metric.LATENCY, reason=error.reason, remedy=error.remedy)
    except Exception as error:
        return Measurement.nothing(
            Metric.LATENCY,
            reason=f"the call cannot be repeated: {type(error).__name__}: {error}",
            remedy="hand the nnscale fixture a call that can run many times",
        )
    interval = quantile_interval(taken.seconds, quantile, confidence)
    if interval is None:
        each_s = max(taken.estimate_s, clock.resolution_s)
        needed_s = time_to_give(1.25 * least * taken.calls_per_sample * each_s)
        return Measurement.nothing(
            Metric.LATENCY,
            reason=(
                f"p{100 * quantile:g} at {100 * confidence:g} % needs {least * taken.calls_per_sample} calls of about "
                f"{format_quantity(taken.estimate_s, SECONDS)}, and there was time for "
                f"{taken.affordable * taken.calls_per_sample}"
            ),
            remedy=f"give it longer: --nnscale-max-time={needed_s:g}",
        )
    return Measurement(
        Metric.LATENCY,
        sample_quantile(taken.seconds, quantile),
        *interval,
        method="wall clock",
        samples=taken.seconds,
        notes=(f"{len(taken.seconds)} samples of {_batch(taken)}, {_threads()}",),
    )


def _batch(taken: Samples) -> str:
    return f"{taken.calls_per_sample} calls" if taken.calls_per_sample > 1 else "a call"


def _threads() -> str:
    import torch

    count = torch.get_num_threads()
    return f"{count} thread{'s' if count > 1 else ''}"
