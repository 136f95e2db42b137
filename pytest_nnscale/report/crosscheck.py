"""Our count beside the peers', and the operators that explain each difference."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from pytest_nnscale.units import FLOP, format_percent, format_quantity

if TYPE_CHECKING:
    from pytest_nnscale.peers import Opinion

_MOST = 5  # operators named for one difference
_TRIED = 12  # operators of which sums are tried
_CLOSE = 0.02  # of the difference: a sum this close may be it


def crosscheck_lines(
    ours: int, by_operator: Mapping[str, int], unknown: Sequence[str], others: Sequence[Opinion]
) -> Iterator[str]:
    """Yield a table of all opinions in FLOP, then a line for each difference."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("counter")
    table.add_column("FLOP (1 MAC = 2 FLOP)", justify="right")
    table.add_column("difference", justify="right")
    bound = ">= " if unknown else ""
    table.add_row("nnscale", f"{bound}{ours:,}", "")
    for other in others:
        if other.flops is None:
            table.add_row(other.peer, "failed", "")
        else:
            table.add_row(other.peer, f"{other.flops:,}", _apart(other.flops - ours, ours))
    out = io.StringIO()
    Console(file=out, width=100, color_system=None).print(table)
    yield from (line.rstrip() for line in out.getvalue().splitlines() if line.strip())
    if unknown:
        yield f"nnscale: a lower bound, no formula for {', '.join(unknown)}"
    for other in others:
        if other.flops is None:
            yield f"{other.peer}: {other.error}"
        elif other.flops != ours:
            yield f"{other.peer}: {'; '.join(_reasons(other, ours, by_operator))}"


def _apart(difference: int, ours: int) -> str:
    if not difference:
        return "equal"
    sign = "+" if difference > 0 else "-"
    return f"{sign}{format_percent(abs(difference), ours)}"


def _reasons(other: Opinion, ours: int, by_operator: Mapping[str, int]) -> list[str]:
    """Say which operators a peer counts otherwise, from what it tells or from what sums up."""
    assert other.flops is not None
    if other.by_operator is not None:
        either = dict.fromkeys((*by_operator, *other.by_operator))
        apart = {name: other.by_operator.get(name, 0) - by_operator.get(name, 0) for name in either}
        largest = sorted((n for n in apart if apart[n]), key=lambda n: -abs(apart[n]))
        return [
            f"{name} {_quantity(other.by_operator.get(name, 0))} for our "
            f"{_quantity(by_operator.get(name, 0))}"
            for name in largest[:_MOST]
        ]
    missing = ours - other.flops
    if missing < 0:
        return [f"{_quantity(-missing)} more than all contractions: it counts other work, too"]
    sums = {
        names: sum(by_operator[name] for name in names)
        for size in (1, 2, 3)
        for names in combinations(list(by_operator)[:_TRIED], size)
    }
    closest = min(sums, key=lambda names: (abs(sums[names] - missing), len(names)), default=None)
    if closest is None or abs(sums[closest] - missing) > _CLOSE * missing:
        return [f"{_quantity(missing)} less, which no three operators add up to"]
    less = "" if sums[closest] == missing else ", and counts other work"
    return [f"leaves out {' and '.join(closest)} ({_quantity(sums[closest])}){less}"]


def _quantity(flops: int) -> str:
    return format_quantity(flops, FLOP) if flops else "0 FLOP"
