"""A call beside another one: the ratio of their times, judged like a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_nnscale.budget import Budget
from pytest_nnscale.errors import BadWorkload, shown
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.workload import Workload, tensors_in

if TYPE_CHECKING:
    import torch

    from pytest_nnscale.meters.effort import Effort
    from pytest_nnscale.observation import Observation

# The origin of the budget of a test that is only held against; nobody judges it by this.
FOR_OTHERS = "timed for others"


_DRIFTS = "the calls write their inputs, and each goes on from what the last one left"


class Comparison(NamedTuple):
    """What both calls returned, and how many times longer the new one takes."""

    new: Any
    old: Any
    ratio: Measurement


def ratio_budget(max_ratio: float) -> Budget:
    """Return the budget of a comparison; BadWorkload is raised for what is no ratio."""
    number = isinstance(max_ratio, int | float) and not isinstance(max_ratio, bool)
    if not number or not 0 < max_ratio < math.inf:
        raise BadWorkload(f"max_ratio={shown(max_ratio)}; it is a number above zero, such as 1.1")
    return Budget(Metric.RATIO, float(max_ratio), origin="nnscale.compare")


def compare(
    new: Workload,
    old: Workload,
    budget: Budget,
    effort: Effort,
    *,
    announced: AbstractContextManager[None] | None = None,
) -> Comparison:
    """Call both on the same inputs, then time them in turns; errors of the calls pass through.

    Each is called once for real. What the further calls do is undone, and the inputs are put back.
    `announced` stands around the further calls.
    """
    from pytest_nnscale.meters.repeats import sampled

    outputs, one, other = _call_both(new, old)

    def take(_repeat: object) -> Measurement:
        return _in_turns(one, other, limit=budget.limit, effort=effort)

    subject = f"{one.subject} beside {other.subject}"
    with announced or nullcontext():
        found = sampled(Metric.RATIO, one, "inference", effort, take, beside=other)
    return Comparison(*outputs, replace(found, subject=subject))


def _call_both(new: Workload, old: Workload) -> tuple[tuple[Any, Any], Observation, Observation]:
    """Call both for real, with the same inputs and random numbers, and put the inputs back."""
    from pytest_nnscale.called import observe_call
    from pytest_nnscale.preservation.generators import Generators
    from pytest_nnscale.preservation.keepsake import Keepsake
    from pytest_nnscale.preservation.tensors import version_of

    inputs = Keepsake((), new.tensors, inputs=(new.args, new.kwargs))
    versions = [version_of(tensor) for tensor in new.tensors]
    generators = Generators()

    def call(workload: Workload) -> tuple[Any, Observation]:
        tensors = workload.tensors
        try:
            output, seen = observe_call(workload)
            workload.check_devices()  # a call that raises shows its own error
            written = [
                tensor
                for tensor, version in zip(tensors, versions, strict=True)
                if version is None or version_of(tensor) != version
            ]
            output = _copied_where_shared(output, written)
        finally:
            inputs.restore()
        notes = (_DRIFTS,) if written else ()
        return output, replace(
            seen, count=seen.count and seen.count.as_one_call(), time_notes=notes
        )

    first, one = call(new)
    generators.restore()
    second, other = call(old)
    return (first, second), one, other


def _copied_where_shared(output: Any, written: Sequence[torch.Tensor]) -> Any:
    """Copy an output that is an input written in place: what is put back would change it."""
    import torch
    from torch.utils import _pytree

    places = {_place_of(tensor) for tensor in written}
    if not any(_place_of(tensor) in places for tensor in tensors_in(output)):
        return output
    return _pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.clone(), output)


def _place_of(tensor: torch.Tensor) -> int:
    try:
        return int(tensor.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError):  # sparse and opaque tensors have no storage
        return id(tensor)


def _in_turns(one: Observation, other: Observation, *, limit: float, effort: Effort) -> Measurement:
    """Time two calls in turns, as an effort says."""
    from pytest_nnscale.meters.ratio import measure_ratio

    assert one.repeat is not None
    assert other.repeat is not None
    return measure_ratio(
        one.repeat,
        other.repeat,
        limit=limit,
        confidence=effort.confidence,
        max_time_s=effort.max_time_s,
        device=one.device,
        flush_l2=effort.flush_l2,
    )


def measure_beside(seen: Observation, budget: Budget, effort: Effort) -> Measurement:
    """Measure how many times longer an observed call takes than what it is held against."""
    from pytest_nnscale.meters.repeats import sampled

    name = budget.relative_to
    reference = seen.references.get(budget.reference or (name, budget.phase, budget.device))
    if isinstance(reference, Workload):
        return _beside_call(seen, reference, budget, effort)
    if reference is None:
        return Measurement.nothing(
            Metric.RATIO,
            reason=f"{name} was not timed in this process before",
            remedy="run both tests; under pytest-xdist in one worker: --dist=loadfile where they stand in "
            "one file, --dist=loadgroup otherwise",
            subject=seen.subject,
        )
    if reference.value is None or not reference.lower or reference.upper is None:
        reason = f"{name} could not be timed: {reference.reason or 'its median may be zero'}"
        return Measurement.nothing(
            Metric.RATIO, reason=reason, remedy=reference.remedy, subject=seen.subject
        )

    def take(repeat: Callable[[], object]) -> Measurement:
        return _beside_timed(repeat, seen, reference, budget, effort)

    return sampled(Metric.RATIO, seen, budget.phase, effort, take)


def _beside_call(
    seen: Observation, reference: Workload, budget: Budget, effort: Effort
) -> Measurement:
    from pytest_nnscale.called import observe_apart
    from pytest_nnscale.meters.repeats import sampled

    try:
        with seen.guard():  # in the grad mode of the repeats
            beside = observe_apart(reference)
    except Exception as error:
        return Measurement.nothing(
            Metric.RATIO,
            reason=f"{budget.relative_to} cannot be called with the same inputs: "
            f"{type(error).__name__}: {error}",
            remedy="hold it against a callable that takes them",
            subject=seen.subject,
        )
    count = beside.count
    beside = replace(beside, count=count and count.as_one_call())

    def take(_repeat: object) -> Measurement:
        return _in_turns(seen, beside, limit=budget.limit, effort=effort)

    return sampled(Metric.RATIO, seen, budget.phase, effort, take, beside=beside)


def for_others(effort: Effort) -> Effort:
    """Return the effort for one side of a ratio: both together are as sure as was asked for."""
    return effort._replace(confidence=(1 + effort.confidence) / 2)


def _beside_timed(
    repeat: Callable[[], object],
    seen: Observation,
    reference: Measurement,
    budget: Budget,
    effort: Effort,
) -> Measurement:
    from pytest_nnscale.meters.table import time_repeats

    assert reference.value
    assert reference.lower
    assert reference.upper
    # Below the first it is within, whatever the reference really took, and above the second over.
    decided = budget.limit * reference.lower, budget.limit * reference.upper
    own = time_repeats(repeat, seen.device, for_others(effort), limit_s=decided)
    if own.value is None or own.lower is None or own.upper is None:
        return replace(own, metric=Metric.RATIO)
    return Measurement(
        Metric.RATIO,
        own.value / reference.value,
        own.lower / reference.upper,
        own.upper / reference.lower,
        method=own.method,
        notes=(f"{budget.relative_to} was timed before, not in turns", *own.notes),
        disturbed=own.disturbed or reference.disturbed,
    )
