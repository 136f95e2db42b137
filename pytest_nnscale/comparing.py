"""A call beside another one: the ratio of their times, judged like a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_nnscale.budget import Budget, Verdict, judge
from pytest_nnscale.errors import BadWorkload, CannotMeasure, shown
from pytest_nnscale.measurement import Measurement, Metric

if TYPE_CHECKING:
    from pytest_nnscale.meters.effort import Effort
    from pytest_nnscale.observation import Observation


class Comparison(NamedTuple):
    """What both calls returned, and how many times longer the new one takes."""

    new: Any
    old: Any
    ratio: Measurement


def compare(
    new: Callable[..., Any],
    old: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    max_ratio: float,
    effort: Effort,
) -> tuple[Comparison, Verdict]:
    """Call both on the same inputs, then time them in turns, and leave both as they were.

    BadWorkload is raised for what cannot be called or is no ratio; errors of the calls pass through.
    """
    from pytest_nnscale.preservation.keepsake import preserved
    from pytest_nnscale.workload import Workload

    if isinstance(max_ratio, bool) or not isinstance(max_ratio, int | float):
        raise BadWorkload(f"max_ratio={shown(max_ratio)}; it is a number above zero, such as 1.1")
    if not 0 < max_ratio < math.inf:
        raise BadWorkload(f"max_ratio={shown(max_ratio)}; it is a number above zero, such as 1.1")
    one, other = Workload(new, args, kwargs), Workload(old, args, kwargs)
    outputs = one.call(), other.call()
    one.check_devices()
    other.check_devices()
    subject = f"{one.subject} beside {other.subject}"
    modules = dict.fromkeys((*one.modules, *other.modules))
    try:
        with (
            preserved([*modules], one.tensors, inputs=(args, dict(kwargs))),
            effort.quiet(one.device),
        ):
            found = ratio_of(one.call, other.call, one.device, limit=max_ratio, effort=effort)
    except CannotMeasure as error:
        found = Measurement.nothing(Metric.RATIO, reason=error.reason, remedy=error.remedy)
    found = replace(found, subject=subject)
    budget = Budget(Metric.RATIO, float(max_ratio), origin="nnscale.compare")
    return Comparison(*outputs, found), Verdict(budget, found, judge(budget, found))


def ratio_of(
    new: Callable[[], object],
    old: Callable[[], object],
    device: str,
    *,
    limit: float,
    effort: Effort,
) -> Measurement:
    """Time two calls in turns, as an effort says."""
    from pytest_nnscale.meters.ratio import measure_ratio

    return measure_ratio(
        new,
        old,
        limit=limit,
        confidence=effort.confidence,
        max_time_s=effort.max_time_s,
        device=device,
        flush_l2=effort.flush_l2,
    )


def measure_beside(
    seen: Observation, relative_to: str, *, limit: float, effort: Effort
) -> Measurement:
    """Measure how many times longer an observed call takes than what it is held against."""
    reference = seen.references.get(relative_to)
    if seen.repeat is None:
        return Measurement.nothing(Metric.RATIO, reason=seen.reason, remedy=seen.remedy)
    if reference is None:
        return Measurement.nothing(
            Metric.RATIO,
            reason=f"{relative_to} was not timed in this process before",
            remedy="run both tests; under xdist give both the same @pytest.mark.xdist_group "
            "and add --dist=loadgroup",
        )
    try:
        with seen.guard(), effort.quiet(seen.device):
            if callable(reference):
                found = ratio_of(seen.repeat, reference, seen.device, limit=limit, effort=effort)
            else:
                found = _beside_timed(seen, reference, relative_to, limit=limit, effort=effort)
    except CannotMeasure as error:
        found = Measurement.nothing(Metric.RATIO, reason=error.reason, remedy=error.remedy)
    return replace(found, subject=seen.subject)


def _beside_timed(
    seen: Observation, reference: Measurement, name: str, *, limit: float, effort: Effort
) -> Measurement:
    from pytest_nnscale.meters.latency import measure_latency

    if reference.value is None or not reference.lower or reference.upper is None:
        reason = f"{name} could not be timed: {reference.reason or 'its median may be zero'}"
        return Measurement.nothing(Metric.RATIO, reason=reason, remedy=reference.remedy)
    assert seen.repeat is not None
    own = measure_latency(
        seen.repeat,
        limit_s=limit * reference.value,
        confidence=effort.confidence,
        max_time_s=effort.max_time_s,
        device=seen.device,
        flush_l2=effort.flush_l2,
    )
    if own.value is None or own.lower is None or own.upper is None:
        return replace(own, metric=Metric.RATIO)
    return Measurement(
        Metric.RATIO,
        own.value / reference.value,
        own.lower / reference.upper,
        own.upper / reference.lower,
        method=own.method,
        notes=(f"{name} was timed before, not in turns", *own.notes),
        disturbed=own.disturbed or reference.disturbed,
    )
