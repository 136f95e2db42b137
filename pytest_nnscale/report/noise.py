"""What a machine can tell apart, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pytest_nnscale.units import SECONDS, format_quantity

if TYPE_CHECKING:
    from pytest_nnscale.ab.comparison import Comparison
    from pytest_nnscale.noise import Floor

_HEADINGS = ("takes", "in turns", "alone", "test")


def noise_lines(
    floors: Sequence[tuple[Comparison, Floor | None]], machine: str, restarts: int
) -> Iterator[str]:
    """Yield the noise of each test on this machine, the noisiest first.

    In turns is what `nnscale ab` tells apart, alone what two sessions do; an id is never cut.
    """
    yield f"{machine}; identical code, {restarts} restarts of each side"
    ordered = sorted(floors, key=lambda row: -row[1].ratio if row[1] else float("-inf"))
    rows = [_HEADINGS, *(_cells(comparison, floor) for comparison, floor in ordered)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:3]
    for row in rows:
        numbers = "  ".join(f"{cell:>{wide}}" for cell, wide in zip(row, widths, strict=False))
        yield f"{numbers}  {row[3]}"


def _cells(comparison: Comparison, floor: Floor | None) -> tuple[str, str, str, str]:
    call = f" (call {comparison.call})" if comparison.call > 1 else ""
    name = f"{comparison.test}{call}"
    if floor is None or comparison.timing is None:
        reason = f": {comparison.reason}" if comparison.reason else ""
        return "-", "-", "-", f"{name}: {comparison.change.value}{reason}"
    takes = format_quantity(comparison.timing.base_s, SECONDS)
    return takes, f"{100 * floor.ratio:.1f} %", f"{100 * floor.time:.1f} %", name
