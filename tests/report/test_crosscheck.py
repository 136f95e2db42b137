"""The crosscheck: every opinion, and why it differs."""

from __future__ import annotations

import pytest

from pytest_nnscale.peers import Opinion
from pytest_nnscale.report.crosscheck import crosscheck_lines

OURS = {"aten::mm": 600, "aten::convolution": 300, "aten::bmm": 100}


def lines(*others: Opinion, unknown: tuple[str, ...] = ()) -> list[str]:
    return list(crosscheck_lines(1000, OURS, unknown, others))


def test_the_table_has_every_opinion_and_its_difference() -> None:
    """Ours first; what agrees is equal, and needs no line of reasons."""
    told = [line.split() for line in lines(Opinion("a", 1000), Opinion("b", 900))]
    assert ["nnscale", "1,000"] in told
    assert ["a", "1,000", "equal"] in told
    assert ["b", "900", "-10.0", "%"] in told
    assert not any(line[0] == "a:" for line in told)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (
            Opinion("p", 400, {"aten::convolution": 300, "aten::bmm": 100}),
            "p: aten::mm 0 FLOP for our 600 FLOP",
        ),
        (
            Opinion("p", 1050, {**OURS, "aten::bmm": 50, "aten::add": 100}),
            "p: aten::add 100 FLOP for our 0 FLOP; aten::bmm 50 FLOP for our 100 FLOP",
        ),
        (Opinion("p", 300), "p: leaves out aten::mm and aten::bmm (700 FLOP)"),
        (Opinion("p", 703), "p: leaves out aten::convolution (300 FLOP), and counts other work"),
        (Opinion("p", 500), "p: 500 FLOP less, which no three operators add up to"),
        (
            Opinion("p", 1500),
            "p: 500 FLOP more than all contractions: it counts other work, too",
        ),
        (Opinion("p", None, error="ValueError: no"), "p: ValueError: no"),
    ],
)
def test_a_difference_is_explained(other: Opinion, reason: str) -> None:
    """By what the peer tells of its operators, else by which of ours add up to it."""
    assert lines(other)[-1] == reason


def test_a_lower_bound_of_ours_is_said() -> None:
    """It is no reason to trust it over the others."""
    told = lines(unknown=("my::op",))
    assert any(line.split() == ["nnscale", ">=", "1,000"] for line in told)
    assert "nnscale: a lower bound, no formula for my::op" in told
