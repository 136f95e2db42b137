"""Base against head: a table for the terminal, and one for a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_nnscale.ab.cause import find_causes
from pytest_nnscale.ab.comparison import Comparison, Report, Side
from pytest_nnscale.ab.ratio import Change
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.report.reasons import NOUNS, cause_text, explanation
from pytest_nnscale.units import SECONDS, format_pair, format_percent, format_quantity

_TABLE = (Metric.FLOPS, Metric.KERNELS, Metric.MEMORY, Metric.PARAMS)
_HEADINGS = ("time", "head / base", "base", "head", *(NOUNS[metric] for metric in _TABLE))


def ab_lines(report: Report) -> Iterator[str]:
    """Yield what was compared, a table with the slowest first, and what it comes to.

    An id is never cut. Below a test stand the exact metrics that changed, by module, or the reason
    why nothing was compared.
    """
    yield from _sides(report)
    rows = _ordered(report.comparisons)
    if rows:
        cells = [_HEADINGS, *(_cells(row) for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        headings, *lines = (_aligned(row, widths) for row in cells)
        yield f"{headings}  test"
        for line, row in zip(lines, rows, strict=True):
            yield f"{line}  {_label(row, rows)}"
            yield from (f"  {text}" for text in _details(row))
    yield _closing(report)


def ab_markdown(report: Report) -> str:
    """Return the comparison as GitHub's Markdown: a table, and the details of each test below."""
    rows = _ordered(report.comparisons)
    lines = [*_sides(report), ""]
    if rows:
        numbers = len(_HEADINGS) - 1
        lines += [
            f"| {' | '.join(_HEADINGS)} | test |",
            f"| --- |{' ---: |' * numbers} --- |",
        ]
        for row in rows:
            cells = _cells(row)
            change = f"**{cells[0]}**" if row.change is Change.SLOWER else cells[0]
            label = _escaped(_label(row, rows))
            lines.append(f"| {' | '.join((change, *cells[1:]))} | {label} |")
        lines.append("")
        for row in rows:
            details = [*_details(row)]
            if details:
                lines.append(f"- {_escaped(_label(row, rows))}: {row.change.value}")
                lines += [f"  - {_escaped(text)}" for text in details]
        lines.append("")
    return "\n".join([*lines, _closing(report), ""])


def _sides(report: Report) -> Iterator[str]:
    base, head = report.base, report.head
    yield f"base: {base.name}, head: {head.name}"
    ran = _ran_with(base)
    if ran == _ran_with(head):
        yield f"both with {ran}"
    else:
        yield f"base with {ran}, head with {_ran_with(head)}: the difference may be theirs"


def _ran_with(side: Side) -> str:
    parts = [f"{name} {version}" for name, version in side.versions.items()]
    if side.threads is not None:
        parts.append(f"{side.threads} thread{'' if side.threads == 1 else 's'}")
    return ", ".join(parts)


def _ordered(comparisons: Sequence[Comparison]) -> list[Comparison]:
    order = list(Change)

    def place(row: Comparison) -> tuple[int, float]:
        return order.index(row.change), -row.timing.ratio.value if row.timing else 0.0

    return sorted(comparisons, key=place)


def _label(row: Comparison, rows: Sequence[Comparison]) -> str:
    """Return the id of a test, with what tells several of its calls apart."""
    others = [other for other in rows if other.test == row.test and other is not row]
    told = [f"call {row.call}"] if any(other.call != row.call for other in others) else []
    told += [row.phase] if any(other.phase != row.phase for other in others) else []
    return f"{row.test} ({', '.join(told)})" if told else row.test


def _cells(row: Comparison) -> tuple[str, ...]:
    if row.timing is None:
        return (row.change.value, *[""] * (len(_HEADINGS) - 1))
    timing = row.timing
    low, high = _digits(timing.ratio.low), _digits(timing.ratio.high)
    base, head = format_pair(timing.base_s, timing.head_s, SECONDS)
    return (
        row.change.value,
        f"{_digits(timing.ratio.value)} ({low} to {high})",
        base,
        head,
        *(_exact(row, metric) for metric in _TABLE),
    )


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return cells as a line: the first to the left, numbers to the right."""
    first, *numbers = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in numbers)])


def _digits(ratio: float) -> str:
    return f"{ratio:.3f}" if ratio < 100 else f"{ratio:.3g}"


def _exact(row: Comparison, metric: Metric) -> str:
    """Return what a metric is where both trees have the same of it, else by how much it changed."""
    base, head = _found(row.base, metric), _found(row.head, metric)
    if base is None or head is None:
        return "unknown"
    if base != head:
        sign = "+" if head > base else "-"
        return f"{sign}{format_percent(abs(head - base), base)}" if base else f"0 to {head:,}"
    return format_quantity(head, metric.dimension)


def _found(measurements: Sequence[Measurement], metric: Metric) -> int | float | None:
    for found in measurements:
        if found.metric is metric and not found.unmeasured:
            return found.value
    return None


def _details(row: Comparison) -> Iterator[str]:
    causes = find_causes(row.base, row.head)
    if row.change in (Change.SLOWER, Change.FASTER):
        yield from explanation(row, causes)
    else:
        yield from map(cause_text, causes)
    if row.reason:
        yield row.reason
    if row.remedy:
        yield row.remedy


def _closing(report: Report) -> str:
    count = len(report.comparisons)
    told = [f"{number} {change.value}" for change, number in report.counts.items()]
    return (
        f"{count} comparison{'' if count == 1 else 's'}: {', '.join(told) or 'nothing was compared'}; "
        f"threshold {100 * report.threshold:g} %, {100 * report.confidence:g} % intervals over "
        f"{report.restarts} restart{'' if report.restarts == 1 else 's'}, {report.took_s:.0f} s"
    )


def _escaped(text: str) -> str:
    """Return a text as Markdown shows it: a test's id has brackets, underscores and bars."""
    for sign in "\\`*_[]|<>":
        text = text.replace(sign, f"\\{sign}")
    return text
