"""The energy counters of a machine, as a table and as JSON types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pytest_nnscale.units import JOULES, SECONDS, format_quantity

if TYPE_CHECKING:
    from pytest_nnscale.power.sources import Finding

_HEADINGS = ("source", "device", "step", "updated every", "counter")


def energy_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield a line for each counter, and for each source without one why, and what to do."""
    rows = [_HEADINGS]
    for finding in findings:
        if not finding.counters:
            told = f"none: {finding.reason}; {finding.remedy}".removesuffix("; ")
            rows.append((finding.source, finding.device, "-", "-", told))
        for counter in finding.counters:
            named = "; ".join((counter.name, *counter.notes))
            rows.append((finding.source, counter.device, *_finely(counter), named))
    widths = [max(len(row[place]) for row in rows) for place in range(4)]
    for row in rows:
        cells = (f"{cell:<{wide}}" for cell, wide in zip(row, widths, strict=False))
        yield f"{'  '.join(cells)}  {row[4]}".rstrip()


def energy_table(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return the same as plain JSON types, resolutions in joules and seconds."""
    return [
        {
            "source": finding.source,
            "device": finding.device,
            "reason": finding.reason,
            "remedy": finding.remedy,
            "counters": [
                {
                    "name": counter.name,
                    "device": counter.device,
                    "resolution_j": counter.resolution_j,
                    "resolution_s": counter.resolution_s,
                    "notes": list(counter.notes),
                }
                for counter in finding.counters
            ],
        }
        for finding in findings
    ]


def _finely(counter: Any) -> tuple[str, str]:
    step = format_quantity(counter.resolution_j, JOULES) if counter.resolution_j else "-"
    return step, format_quantity(counter.resolution_s, SECONDS) if counter.resolution_s else "-"
