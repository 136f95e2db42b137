"""Efficiency: which share of what this machine can do a call reaches, as a roofline has it.

Is: the time that the call takes at best, divided by the time that it takes. At best is the longer of
two: its FLOPs at the best FLOP/s for their dtype, and its bytes at the best bytes/s for as many.
Counts as FLOPs what the metric flops counts. As bytes, each once a call: weights and inputs that it
reads, what it writes of such, and its output where that is returned, gradients included. Rows that are
looked up in a table, and all that is made and used up in between, do not count: the bytes are a lower
bound, and so is the time at best. The bytes that are really moved would show as much or more, so that
a budget that is kept is kept by them, too.
Does not count: other limits of the machine, such as launches, latencies and elementwise arithmetic.
Error sources: those of latency, from which the interval comes; the ceilings, which are the best of
short runs and have no interval; convolutions with fewer operations than are counted (Winograd).
Reference: pytest_nnscale.ceiling, pytest_nnscale.counting.traffic; Williams, Waterman and Patterson,
"Roofline", CACM 52 (4), 2009.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.units import BYTES, FLOP, SECONDS, format_quantity

if TYPE_CHECKING:
    from pytest_nnscale.ceiling.roofline import Attainable, Roofline
    from pytest_nnscale.counting.traffic import Traffic

# Beyond its ceiling by more than noise: then the ceiling is measured once more.
_BEYOND = 1.05


def measure_efficiency(
    call: Callable[[], object],
    *,
    flops: Measurement,
    timer: Callable[[float | None], Measurement],
    timed: Measurement | None = None,
    limit: float | None = None,
    device: str = "cpu",
    roofline: Roofline | None = None,
) -> Measurement:
    """Measure which share of its ceiling a call reaches; never raises what the call does.

    `flops` are those of the call; where they are not known, neither is this. `timer` takes a time in
    seconds and measures the latency until it is known on which side of that it lies. `timed` is a
    latency of the same call that was measured before, and is enough where it tells already.
    """
    if flops.value is None or flops.upper is None:
        return _nothing(flops)
    from pytest_nnscale.ceiling.roofline import Roofline

    try:
        traffic = _seen(call, device)
        roofline = roofline or Roofline(device)
        best = roofline.attainable(traffic.flops, traffic.nbytes)
        if not best.seconds:
            raise CannotMeasure(
                "the call does no contraction, and moves no bytes that could be told",
                remedy="hand model and inputs to the nnscale fixture: what a test makes itself is "
                "not known to be read",
            )
        limit_s = None if limit is None else best.seconds / limit
        found = timed if timed is not None and _tells(timed, limit_s) else timer(limit_s)
        if found.value and best.seconds > _BEYOND * found.value:
            roofline.measure_again()
            best = roofline.attainable(traffic.flops, traffic.nbytes)
    except CannotMeasure as error:
        return Measurement.nothing(Metric.EFFICIENCY, reason=error.reason, remedy=error.remedy)
    if not found.value or not found.upper or found.lower is None:
        return _nothing(found)
    return Measurement(
        Metric.EFFICIENCY,
        best.seconds / found.value,
        best.seconds / found.upper,
        best.seconds / found.lower if found.lower else None,
        reason="" if found.lower else "the call may take no time at all, as far as is known",
        remedy=found.remedy,
        method=found.method,
        samples=tuple(best.seconds / each for each in found.samples if each),
        notes=(_told(found.value, best, traffic), *_odd(found.value, best, roofline), *found.notes),
        disturbed=found.disturbed,
    )


def _seen(call: Callable[[], object], device: str) -> Traffic:
    from pytest_nnscale.counting.traffic import least_traffic

    try:
        traffic = least_traffic(call, device)
    except CannotMeasure:
        raise
    except Exception as error:
        raise CannotMeasure(
            f"the call cannot be repeated: {type(error).__name__}: {error}",
            remedy="hand the nnscale fixture a call that can run many times",
        ) from error
    if traffic.uncounted:
        raise CannotMeasure(
            f"no formula for {traffic.uncounted}, which ran when the call was repeated",
            remedy="hand the nnscale fixture a call that does the same each time",
        )
    return traffic


def _tells(timed: Measurement, limit_s: float | None) -> bool:
    """Tell whether a latency is below a limit for sure, or could not be measured.

    Above it is not enough: it may be known from a moment alone, where another limit was far away.
    """
    if timed.lower is None or timed.upper is None:
        return True  # nor could it be a second time
    if limit_s is None:
        return False
    return timed.upper <= limit_s


def _nothing(lacking: Measurement) -> Measurement:
    return Measurement.nothing(
        Metric.EFFICIENCY, reason=lacking.reason, remedy=lacking.remedy, missing=lacking.missing
    )


def _told(taken_s: float, best: Attainable, traffic: Traffic) -> str:
    """Say what it takes, what it takes at best, and by which bound."""
    flops, nbytes = sum(traffic.flops.values()), traffic.nbytes
    bounds = []
    if flops:
        rate = format_quantity(flops / best.compute_s, FLOP)
        took = format_quantity(best.compute_s, SECONDS)
        bounds.append((best.compute_s, f"{took} for {format_quantity(flops, FLOP)} at {rate}/s"))
    if nbytes:
        rate = format_quantity(nbytes / best.memory_s, BYTES)
        took = format_quantity(best.memory_s, SECONDS)
        bounds.append((best.memory_s, f"{took} for {format_quantity(nbytes, BYTES)} at {rate}/s"))
    nearer, *other = (text for _, text in sorted(bounds, reverse=True))
    also = f" ({other[0]})" if other else ""
    return f"it takes {format_quantity(taken_s, SECONDS)}, at best {nearer}{also}"


def _odd(taken_s: float, best: Attainable, roofline: Roofline) -> tuple[str, ...]:
    notes = []
    if best.seconds > _BEYOND * taken_s:
        notes.append(
            "that is more than the ceiling: convolutions may do less than is counted, and data "
            "may stay in a faster cache"
        )
    if roofline.trouble:
        notes.append(f"the ceiling is measured in every run: {roofline.trouble}")
    return tuple(notes)
