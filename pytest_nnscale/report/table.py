"""Tables: the budgets of a session, the modules of a profile."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_nnscale.budget import Outcome, Verdict
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

    from pytest_nnscale.profiling import ModuleRow, Profile

_SHOWN = 20


def budget_table(
    verdicts: Sequence[tuple[str, Verdict]], *, width: int, everything: bool
) -> list[str]:
    """Return the lines of a table of budgets, the fullest first; the first twenty unless asked."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("used", "measured / limit"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("budget", no_wrap=True)
    table.add_column("test", overflow="fold")
    ordered = sorted(verdicts, key=lambda row: -_used(row[1]))
    for nodeid, verdict in ordered if everything else ordered[:_SHOWN]:
        table.add_row(*_cells(verdict), title(verdict.budget), _escape(nodeid))
    lines = _render(table, width)
    if not everything and len(ordered) > _SHOWN:
        lines.append(f"... and {len(ordered) - _SHOWN} more: pytest -v shows all")
    return lines


def _used(verdict: Verdict) -> float:
    value = verdict.measurement.value
    unknown = verdict.outcome is Outcome.UNMEASURED
    return float("inf") if unknown or value is None else value / verdict.budget.limit


def _cells(verdict: Verdict) -> tuple[str, str]:
    """Return the used share, or the outcome where there is none, and both numbers."""
    budget, found = verdict.budget, verdict.measurement
    dimension = budget.metric.dimension
    if found.value is None:
        return verdict.outcome.value, f"- / {format_quantity(budget.limit, dimension)}"
    at_least = ">= " if found.upper is None else ""
    if 1e-3 < found.value / budget.limit < 1e3:
        value, limit = format_pair(found.value, budget.limit, dimension)
        if value.rpartition(" ")[2] == limit.rpartition(" ")[2] and " " in value:
            value = value.rpartition(" ")[0]  # one unit is said once
    else:
        value = format_quantity(found.value, dimension)
        limit = format_quantity(budget.limit, dimension)
    share = at_least + format_percent(found.value, budget.limit)
    if verdict.outcome in (Outcome.UNMEASURED, Outcome.INCONCLUSIVE):
        share = verdict.outcome.value
    return share, f"{at_least}{value} / {limit}"


def profile_table(profile: Profile, *, width: int = 80, depth: int | None = 2) -> str:
    """Return a profile as text: its numbers, then its modules down to `depth` (None: all)."""
    from rich import box
    from rich.table import Table

    lines = [f"{profile.subject} ({profile.phase}, {profile.method}); 1 MAC = 2 FLOP"]
    for found in profile.measurements:
        if found.value is None:
            lines.append(f"  {found.metric.value:<8} unmeasured: {found.reason}; {found.remedy}")
            continue
        text = format_quantity(found.value, found.metric.dimension, digits=4)
        if found.upper is None:
            text = f"at least {text}: {found.reason}"
        elif found.lower is not None and found.lower != found.upper:
            low, high = format_pair(found.lower, found.upper, found.metric.dimension)
            text += f" (between {low} and {high})"
        lines.append(f"  {found.metric.value:<8} {text}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("module", "type"):
        table.add_column(heading, overflow="fold")
    for heading in ("params", "flops", "", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in profile.modules:
        level = row.path.count(".") + 1 if row.path else 0
        if depth is None or level <= depth:
            table.add_row(*_module_cells(row, level, profile))
    return "\n".join([*lines, *_render(table, width)])


def _module_cells(row: ModuleRow, level: int, profile: Profile) -> tuple[str, ...]:
    return (
        "  " * level + (_escape(row.path.rpartition(".")[2]) or "(whole)"),
        _escape(row.type),
        _shown(row.total_params, COUNT),
        _shown(row.total_flops, FLOP),
        format_percent(row.total_flops or 0, profile.flops) if profile.flops else "",
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
