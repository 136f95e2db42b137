"""Tables: the budgets of a session, the modules of a profile."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_nnscale.budget import Outcome, Verdict
from pytest_nnscale.measurement import Metric
from pytest_nnscale.report.explanation import title
from pytest_nnscale.units import (
    BYTES,
    COUNT,
    FLOP,
    Dimension,
    format_pair,
    format_percent,
    format_quantity,
)

if TYPE_CHECKING:
    from rich.table import Table

    from pytest_nnscale.profiles import ModuleRow, Profile

_SHOWN = 20
_HEADINGS = ("used", "measured / limit", "budget")
# The columns of numbers in a table of modules, and the metrics that they show.
_COLUMNS = (
    ("params", Metric.PARAMS),
    ("flops", Metric.FLOPS),
    ("", Metric.FLOPS),
    ("memory", Metric.MEMORY),
)


def budget_table(
    verdicts: Sequence[tuple[str, Verdict]], *, width: int, everything: bool
) -> list[str]:
    """Return the lines of a table of budgets, the fullest first; the first twenty unless asked.

    An id is never cut or folded, so that it can be copied: where one does not fit beside its
    budget, each test has a line of its own with its budgets below.
    """
    ordered = sorted(verdicts, key=lambda row: -_used(row[1]))
    shown = ordered if everything else ordered[:_SHOWN]
    cells = [(*_cells(verdict), _titled(verdict)) for _, verdict in shown]
    headings, *rows = _aligned([_HEADINGS, *cells])
    pairs = list(zip(rows, (nodeid for nodeid, _ in shown), strict=True))
    if all(len(row) + 2 + len(nodeid) <= width for row, nodeid in pairs):
        lines = [f"{headings}  test", *(f"{row}  {nodeid}" for row, nodeid in pairs)]
    else:
        lines = [f"  {headings}".rstrip()]
        for nodeid in dict.fromkeys(nodeid for _, nodeid in pairs):
            lines += [nodeid, *(f"  {row}".rstrip() for row, other in pairs if other == nodeid)]
    if len(shown) < len(ordered):
        lines.append(f"... and {len(ordered) - len(shown)} more: pytest -v shows all")
    return lines


def _aligned(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Return each row as a line: numbers to the right, the last column to the left."""
    used, both, budget = (max(map(len, column)) for column in zip(*rows, strict=True))
    return [f"{a:>{used}}  {b:>{both}}  {c:<{budget}}" for a, b, c in rows]


def _used(verdict: Verdict) -> float:
    value = verdict.measurement.value
    unknown = verdict.outcome is Outcome.UNMEASURED
    return float("inf") if unknown or value is None else _share(verdict, value)


def _share(verdict: Verdict, value: float) -> float:
    """Return how much of a budget is used; of one that has to be reached, how much it asks for."""
    limit = verdict.budget.limit
    if verdict.budget.metric.more_is_better:
        return limit / value if value else float("inf")
    return value / limit


def _titled(verdict: Verdict) -> str:
    """Return the name of a budget; an estimate is never shown as if it were measured."""
    return f"{title(verdict.budget)}{', an estimate' if verdict.measurement.estimated else ''}"


def _cells(verdict: Verdict) -> tuple[str, str]:
    """Return the used share, or the outcome where there is none, and both numbers."""
    budget, found = verdict.budget, verdict.measurement
    dimension = budget.metric.dimension
    if found.value is None:
        return verdict.outcome.value, f"- / {format_quantity(budget.limit, dimension)}"
    at_least = ">= " if found.upper is None else ""
    value, limit = format_pair(found.value, budget.limit, dimension)
    if " " in value and value.rpartition(" ")[2] == limit.rpartition(" ")[2]:
        value = value.rpartition(" ")[0]  # one unit is said once
    share = at_least + format_percent(_share(verdict, found.value), 1)
    if verdict.outcome in (Outcome.UNMEASURED, Outcome.INCONCLUSIVE):
        share = verdict.outcome.value
    return share, f"{at_least}{value} / {limit}"


def profile_table(profile: Profile, *, width: int = 80, depth: int | None = 2) -> str:
    """Return a profile as text: its numbers, then its modules down to `depth` (None: all)."""
    lines = [f"{profile.subject} ({profile.phase}, {profile.method}); 1 MAC = 2 FLOP"]
    for found in profile.measurements:
        if found.value is None:
            told = "; ".join(text for text in (found.reason, found.remedy) if text)
            lines.append(f"  {found.metric.value:<8} unmeasured: {told}")
            continue
        text = format_quantity(found.value, found.metric.dimension, digits=4)
        if found.upper is None:
            text = f"at least {text}: {found.reason}"
        elif found.lower is not None and found.lower != found.upper:
            low, high = format_pair(found.lower, found.upper, found.metric.dimension)
            text += f" (between {low} and {high})"
        if found.metric is Metric.MEMORY and profile.held:
            text += f" ({_held(profile.held)})"
        if found.estimated:
            text += ", an estimate"
        lines.append(f"  {found.metric.value:<8} {text}")
    notes = dict.fromkeys(note for found in profile.measurements for note in found.notes)
    lines += [f"  {note}" for note in notes]
    return "\n".join([*lines, *_module_lines(profile, width, depth)])


def _held(held: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{kind} {format_quantity(nbytes, BYTES)}" for kind, nbytes in held)


def _module_lines(profile: Profile, width: int, depth: int | None) -> list[str]:
    """Return the table of modules: columns for what was asked for and is known, none without."""
    from rich import box
    from rich.table import Table

    rows = []
    for row in profile.modules:
        level = row.path.count(".") + 1 if row.path else 0
        if depth is None or level <= depth:
            rows.append(_module_cells(row, level, profile))
    asked = {found.metric for found in profile.measurements}
    filled = [
        (place, heading)
        for place, (heading, metric) in enumerate(_COLUMNS, 2)
        if metric in asked and any(cells[place] for cells in rows)
    ]
    if not filled:
        return []
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("module", "type"):
        table.add_column(heading, overflow="fold")
    for _, heading in filled:
        table.add_column(heading, justify="right", no_wrap=True)
    for cells in rows:
        table.add_row(*cells[:2], *(cells[place] for place, _ in filled))
    return _render(table, width)


def _module_cells(row: ModuleRow, level: int, profile: Profile) -> tuple[str, ...]:
    flops = row.total_flops
    at_least = "" if row.complete or flops is None else ">= "
    return (
        "  " * level + (_escape(row.path.rpartition(".")[2]) or "(whole)"),
        _escape(row.type),
        _shown(row.total_params, COUNT),
        at_least + _shown(flops, FLOP),
        format_percent(flops, profile.flops) if flops is not None and profile.flops else "",
        _shown(row.total_memory_bytes, BYTES),
    )


def _shown(amount: int | None, dimension: Dimension) -> str:
    return "" if amount is None else format_quantity(amount, dimension)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _render(table: Table, width: int) -> list[str]:
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=False, color_system=None)
    console.print(table)
    return [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]
