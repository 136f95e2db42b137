"""What a machine can tell apart, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pytest_nnscale.units import SECONDS, format_quantity

if TYPE_CHECKING:
    from pytest_nnscale.ab.comparison import Comparison
    from pytest_nnscale.noise import Floor

_HEADINGS = ("takes", "ab", "in turns", "alone", "test")


def noise_lines(
    floors: Sequence[tuple[Comparison, Floor | None]], machine: str, restarts: int
) -> Iterator[str]:
    """Yield the noise of each test on this machine, the noisiest first.

    Each is what is told apart at the least: by `nnscale ab`, by two that take turns in one process, by
    two sessions within minutes; an id is never cut.
    """
    yield f"{machine}; identical code, {restarts} restarts of each side"
    ordered = sorted(floors, key=lambda row: -row[1].ratio if row[1] else float("-inf"))
    rows = [_HEADINGS, *(_cells(comparison, floor) for comparison, floor in ordered)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:4]
    for row in rows:
        numbers = "  ".join(f"{cell:>{wide}}" for cell, wide in zip(row, widths, strict=False))
        yield f"{numbers}  {row[4]}"
    yield "measured within minutes: what changes from one day to the next is beyond it"


def _cells(comparison: Comparison, floor: Floor | None) -> tuple[str, str, str, str, str]:
    told = [f"call {comparison.call}"] if comparison.call > 1 else []
    told += [comparison.phase] if comparison.phase != "inference" else []
    name = f"{comparison.test} ({', '.join(told)})" if told else comparison.test
    if floor is None or comparison.timing is None:
        reason = f": {comparison.reason}" if comparison.reason else ""
        return "-", "-", "-", "-", f"{name}: {comparison.change.value}{reason}"
    takes = format_quantity(comparison.timing.base_s, SECONDS)
    ratio, process, time = (f"{100 * share:.1f} %" for share in floor)
    return takes, ratio, process, time, name
