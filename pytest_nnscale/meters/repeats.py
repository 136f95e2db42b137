"""Repeats of what was observed: whether they tell the time that is asked for, and what stands around them.

Whatever is sampled is sampled here. A call that computes nothing takes no time, and its time would
keep any budget: on meta, where no operator ran, or where the repeat does the work of another phase.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.units import SECONDS, format_quantity

if TYPE_CHECKING:
    from pytest_nnscale.budget import Phase
    from pytest_nnscale.meters.effort import Effort
    from pytest_nnscale.observation import Observation

_TELLING_OVERHEAD = 0.001
_EMPTY_REPEATS = 100


def sampled(
    metric: Metric,
    seen: Observation,
    phase: Phase,
    effort: Effort,
    take: Callable[[Callable[[], object]], Measurement],
    *,
    beside: Observation | None = None,
) -> Measurement:
    """Have repeats of a call sampled, where that tells its time; never raises for what cannot be.

    `take` gets the repeat. Others are held off meanwhile, and all that was seen to be written is
    put back afterwards; also by `beside`, which is repeated in turns with it. That may be none of
    torch's: a call of another library runs no tensor operator.
    """
    both = (seen,) if beside is None else (seen, beside)
    try:
        _refuse(seen, phase)
        if seen.repeat is None:
            raise CannotMeasure(seen.reason, remedy=seen.remedy)
        if beside is not None:
            _refuse_beside(seen, beside, phase)
        with ExitStack() as stack:
            for each in both:
                stack.enter_context(each.guard())
            empty_s = _empty_s(seen)
            # Of energy one measurement goes on at a time, whatever the device: all draw from one plug.
            stack.enter_context(effort.quiet("cpu" if metric is Metric.ENERGY else seen.device))
            found = take(seen.repeat)
    except CannotMeasure as error:  # also where others would not be held off, or were not
        return Measurement.nothing(
            metric, reason=error.reason, remedy=error.remedy, subject=seen.subject
        )
    notes = (*found.notes, *_overhead(found, empty_s), *_all_notes(both)) if found.value else ()
    return replace(found, subject=seen.subject, notes=notes or found.notes)


def _refuse(seen: Observation, phase: Phase) -> None:
    """Raise CannotMeasure where a repeat would not tell the time of the phase."""
    if seen.device.startswith("meta"):
        raise CannotMeasure(
            "the model is on the meta device, where nothing is computed",
            remedy="move model and inputs to a real device",
        )
    if seen.count is None:
        return
    if not seen.count.operators:
        raise CannotMeasure(
            "the call ran no tensor operator",
            remedy="hand over a call that runs the model here: iterate what it generates, "
            "await what it returns",
        )
    kinds = {device.partition(":")[0] for device in seen.count.devices} - {"cpu", "meta"}
    if len(kinds) > 1:
        raise CannotMeasure(
            f"the call runs on {' and '.join(sorted(kinds))}, and a clock follows one of them",
            remedy="measure what runs on each by itself",
        )
    if seen.count.backward != (phase == "training"):
        # A repeat does all that the body does: its time is that of no other phase.
        did = "runs a backward pass" if seen.count.backward else "runs no backward pass"
        right = "training" if seen.count.backward else "inference"
        raise CannotMeasure(
            f"phase={phase!r}, but what would be repeated {did}",
            remedy=f"say phase={right!r}, or use the fixture",
        )


def _refuse_beside(seen: Observation, beside: Observation, phase: Phase) -> None:
    if beside.repeat is None:
        raise CannotMeasure(beside.reason, remedy=beside.remedy)
    if beside.count is None or not beside.count.operators:
        return
    try:
        _refuse(beside, phase)
    except CannotMeasure as error:
        reason = f"{beside.subject} is no reference: {error.reason}"
        raise CannotMeasure(reason, remedy=error.remedy) from error
    if beside.device != seen.device:
        raise CannotMeasure(
            f"{seen.subject} runs on {seen.device} and {beside.subject} on {beside.device}, and one "
            "clock has to time both",
            remedy="have both run on one device",
        )


def _empty_s(seen: Observation) -> float:
    """Return what a repeat takes beside the call: the least of many, with an empty one."""
    from pytest_nnscale.timing.clock import WallClock

    if seen.empty is None:
        return 0.0
    return min(WallClock().times_s(seen.empty, calls=1, batches=_EMPTY_REPEATS))


def _overhead(found: Measurement, empty_s: float) -> tuple[str, ...]:
    if found.metric is not Metric.LATENCY or empty_s <= _TELLING_OVERHEAD * (found.value or 0):
        return ()
    return (f"{format_quantity(empty_s, SECONDS)} of it is pytest, which calls the test",)


def _all_notes(both: Sequence[Observation]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for seen in both for note in seen.time_notes))
