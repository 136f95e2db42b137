"""Latency: the time of one call.

Counts: wall-clock seconds of a call, with the device's queue empty before and after, or the time
that CUDA events tell between a GPU's start and end of it; the stated quantile over calls, the
median unless told otherwise. The median of a short call is that of batches of calls.
Of other quantiles each call is timed by itself.
Does not count: the first calls, which warm up; garbage collection, which is held off meanwhile.
Error sources: other load on the machine, clock frequency, the reading of the clock, of which it is
said what it takes. Neighbouring samples that depend on each other are counted in blocks.
Reference: pytest_nnscale.timing.interval, pytest_nnscale.timing.sequence.
"""

from __future__ import annotations

from collections.abc import Callable

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters.circumstances import denormals, overhead, threads, threads_since
from pytest_nnscale.timing.clock import Clock
from pytest_nnscale.timing.conditions import conditions
from pytest_nnscale.timing.devices import clock_for
from pytest_nnscale.timing.interval import sample_quantile
from pytest_nnscale.timing.sampling import Limit, Samples, sample, time_for
from pytest_nnscale.timing.sequence import least_samples
from pytest_nnscale.units import SECONDS, format_quantity

_NO_MORE = (
    "more time would not help, since so many samples are the most that are taken: leave a budget "
    "further away, or budget the median"
)


def measure_latency(
    call: Callable[[], object],
    *,
    quantile: float = 0.5,
    limit_s: Limit | None = None,
    confidence: float = 0.99,
    max_time_s: float = 5.0,
    clock: Clock | None = None,
    device: str = "cpu",
    flush_l2: bool = False,
) -> Measurement:
    """Time a call in seconds, with the interval of its quantile; never raises what the call does.

    It is timed until the interval lies on one side of `limit_s`, and for half a second at least
    where that is above it. Where `max_time_s` does not
    suffice for as many calls as an interval needs, nothing is measured, and the reason says how
    long it would take. `flush_l2` empties a GPU's cache before each call.
    """
    before = threads()
    try:
        clock = clock or clock_for(device, flush=flush_l2)
        with conditions(device) as watch:
            taken = sample(
                call,
                clock=clock,
                max_time_s=max_time_s,
                quantile=quantile,
                confidence=confidence,
                limit_s=limit_s,
                look=watch.look,
            )
    except CannotMeasure as error:
        return Measurement.nothing(Metric.LATENCY, reason=error.reason, remedy=error.remedy)
    except Exception as error:
        return Measurement.nothing(
            Metric.LATENCY,
            reason=f"the call cannot be repeated: {type(error).__name__}: {error}",
            remedy="hand the nnscale fixture a call that can run many times",
        )
    if taken.interval is None:
        return _too_few(taken, quantile, confidence)
    # Where the machine changed meanwhile, all samples and the last ones may disagree.
    value = min(
        max(sample_quantile(taken.seconds, quantile), taken.interval.lower), taken.interval.upper
    )
    return Measurement(
        Metric.LATENCY,
        value,
        taken.interval.lower,
        taken.interval.upper,
        method=clock.method,
        samples=taken.seconds,
        notes=(
            f"{_counts(taken)}, {threads_since(before)}",
            *overhead(clock, taken.calls_per_sample, taken.estimate_s),
            *denormals(taken.denormal),
            *watch.notes,
        ),
        remedy=watch.remedy or (_NO_MORE if taken.capped else ""),
        disturbed=watch.disturbed,
    )


def _too_few(taken: Samples, quantile: float, confidence: float) -> Measurement:
    least = least_samples(quantile, confidence) * taken.calls_per_sample
    each = format_quantity(taken.estimate_s, SECONDS)
    asked = f"p{100 * quantile:g} at {100 * confidence:g} %"
    reason = f"{asked} needs {least} calls of about {each}, and there was no time for so many"
    return Measurement.nothing(
        Metric.LATENCY,
        reason=reason,
        remedy=f"give it longer: --nnscale-max-time={time_for(taken.needed_s):g}",
    )


def _counts(taken: Samples) -> str:
    assert taken.interval is not None
    each = f"{taken.calls_per_sample} calls" if taken.calls_per_sample > 1 else "a call"
    text = f"{len(taken.seconds)} samples of {each} after {taken.warm_up_calls} to warm up"
    if not taken.steady:
        text += ", which never became steady"
    _, _, blocks, size, drifting = taken.interval
    if drifting:
        return f"{text}, drifting from one of {blocks} blocks to the next"
    return text if size == 1 else f"{text}, in {blocks} blocks of {size}"
