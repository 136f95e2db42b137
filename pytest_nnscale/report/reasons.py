"""Why a test takes another time: what changed of its work, and of what that is not known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_nnscale.ab.cause import Cause, Part
from pytest_nnscale.ab.comparison import Comparison
from pytest_nnscale.ab.ratio import Change
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.units import format_pair, format_percent, format_quantity

NOUNS = {
    Metric.FLOPS: "FLOPs",
    Metric.KERNELS: "kernels",
    Metric.MEMORY: "memory",
    Metric.PARAMS: "parameters",
    Metric.SIZE: "size",
}
# Where one of these moved as the time did, it may be why; parameters take no time by themselves.
_WORK = (Metric.FLOPS, Metric.KERNELS, Metric.MEMORY)


def cause_text(cause: Cause) -> str:
    """Return a change in words: "FLOPs rose 12.0 % in layer3 (8.00 MFLOP to 8.96 MFLOP)"."""
    dimension = cause.metric.dimension
    base, head = format_pair(cause.base, cause.head, dimension)
    rose = "rose" if cause.head > cause.base else "fell"
    by = format_percent(abs(cause.head - cause.base), cause.base)
    by = f" {by}" if cause.base else ""
    where = ""
    if len(cause.parts) == 1:
        where = f" in {cause.parts[0].path}{_presence(cause.parts[0])}"
    elif cause.parts:
        where = ", most of it in " + ", ".join(
            f"{part.path} ({_signed(part, cause.metric)})" for part in cause.parts
        )
    return f"{NOUNS[cause.metric]} {rose}{by}{where}: {base} to {head}"


def explanation(row: Comparison, causes: Sequence[Cause]) -> Iterator[str]:
    """Yield why a time may have changed, what is not known of that, and what else has changed."""
    slower = row.change is Change.SLOWER
    of_work = [cause for cause in causes if cause.metric in _WORK]
    reasons = [cause for cause in of_work if (cause.head > cause.base) is slower]
    for number, cause in enumerate(reasons):
        yield f"{'and' if number else 'because'} {cause_text(cause)}"
    unknown = [*_unknown(row)]
    if not reasons and not unknown:
        what = "FLOPs, kernels and memory are as before"
        if of_work:
            what = f"neither FLOPs nor kernels nor memory {'rose' if slower else 'fell'}"
        yield f"{what}: the operators take another time, or the code between them does"
    yield from unknown
    yield from (f"also {cause_text(cause)}" for cause in causes if cause not in reasons)


def _unknown(row: Comparison) -> Iterator[str]:
    """Yield of which work nobody knows whether it changed, and why."""
    nouns: dict[str, list[str]] = {}
    for metric in _WORK:
        lacking = {"base": _lacking(row.base, metric), "head": _lacking(row.head, metric)}
        told = [f"{side}: {why}" for side, why in lacking.items() if why]
        if told:
            same = lacking["base"] == lacking["head"]
            nouns.setdefault(lacking["base"] if same else "; ".join(told), []).append(NOUNS[metric])
    for why, named in nouns.items():
        *most, last = named
        what = f"{', '.join(most)} and {last}" if most else last
        yield f"whether {what} changed is not known: {why}"


def _lacking(measurements: Sequence[Measurement], metric: Metric) -> str:
    """Return why a metric is not fully known; nothing where it is."""
    found = next((found for found in measurements if found.metric is metric), None)
    if found is None:
        return "it was not counted"
    return (found.reason or "no reason is given") if found.unmeasured else ""


def _presence(part: Part) -> str:
    if not part.base:
        return ", which base does not have"
    return ", which head does not have" if not part.head else ""


def _signed(part: Part, metric: Metric) -> str:
    sign = "+" if part.head > part.base else "-"
    return f"{sign}{format_quantity(abs(part.head - part.base), metric.dimension)}"
