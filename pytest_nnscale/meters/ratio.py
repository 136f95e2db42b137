"""Ratio: how many times longer one call takes than another.

Counts: the median over turns, in each of which both are called, one right after the other; in every
second turn the other goes first. What both do, such as reading the same inputs, counts in both.
Does not count: what is the same drift for both, such as a clock frequency that changes slowly.
Error sources: as for latency; a call that leaves the caches to the next one in another state.
Reference: pytest_nnscale.timing.pairs, pytest_nnscale.timing.sequence.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters.circumstances import denormals, overhead, threads, threads_since
from pytest_nnscale.timing.clock import Clock
from pytest_nnscale.timing.conditions import conditions
from pytest_nnscale.timing.devices import clock_for
from pytest_nnscale.timing.pairs import sample_ratio
from pytest_nnscale.timing.sampling import time_for
from pytest_nnscale.units import SECONDS, format_quantity


def measure_ratio(
    new: Callable[[], object],
    old: Callable[[], object],
    *,
    limit: float | None = None,
    confidence: float = 0.99,
    max_time_s: float = 5.0,
    clock: Clock | None = None,
    device: str = "cpu",
    flush_l2: bool = False,
) -> Measurement:
    """Time two calls in turns, until their ratio surely lies on one side of a limit.

    Never raises what the calls do. Where `max_time_s` does not suffice, nothing is measured, and
    the reason says how long it would take.
    """
    before = threads()
    try:
        clock = clock or clock_for(device, flush=flush_l2)
        with conditions(device) as watch:
            taken = sample_ratio(
                new,
                old,
                clock=clock,
                max_time_s=max_time_s,
                confidence=confidence,
                limit=limit,
                look=watch.look,
            )
    except CannotMeasure as error:
        return Measurement.nothing(Metric.RATIO, reason=error.reason, remedy=error.remedy)
    except Exception as error:
        return Measurement.nothing(
            Metric.RATIO,
            reason=f"a call cannot be repeated: {type(error).__name__}: {error}",
            remedy="hand over calls that can run many times",
        )
    if taken.interval is None:
        return Measurement.nothing(
            Metric.RATIO,
            reason="too few turns of both fit into the time given",
            remedy=f"give it longer: --nnscale-max-time={time_for(taken.needed_s):g}",
        )
    lower, upper, blocks, size, drifting = taken.interval
    one, other = (
        format_quantity(statistics.median(each), SECONDS) for each in (taken.new_s, taken.old_s)
    )
    in_blocks = f" in {blocks} blocks of {size}" if size > 1 else ""
    in_blocks += ", drifting" if drifting else ""
    in_blocks += "" if taken.steady else ", after a warm-up that never became steady"
    shorter_s, calls = min(
        (statistics.median(taken.new_s), taken.new_calls),
        (statistics.median(taken.old_s), taken.old_calls),
    )
    return Measurement(
        Metric.RATIO,
        min(max(statistics.median(taken.ratios), lower), upper),
        lower,
        upper,
        method=clock.method,
        samples=taken.ratios,
        notes=(
            f"{one} beside {other}, {len(taken.ratios)} turns{in_blocks}, {threads_since(before)}",
            *overhead(clock, calls, shorter_s),
            *denormals(taken.denormal),
            *watch.notes,
        ),
        remedy=watch.remedy,
        disturbed=watch.disturbed,
    )
