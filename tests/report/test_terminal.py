"""The end of a session: its table, its closing line, what was stated in vain."""

from __future__ import annotations

import pytest

from pytest_nnscale.budget import Budget, Outcome, Verdict
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.report.terminal import in_vain, summary
from pytest_nnscale.tally import Tally


def verdict(outcome: Outcome, origin: str = "the test's mark") -> Verdict:
    held = Budget(Metric.PARAMS, 100, origin=origin)
    return Verdict(held, Measurement.exact(Metric.PARAMS, 50), outcome)


def tally_of(*outcomes: Outcome) -> Tally:
    return Tally(verdicts={f"test_{n}": (verdict(o),) for n, o in enumerate(outcomes)})


VAIN = Tally(
    verdicts={"test_a": (verdict(Outcome.WITHIN),)},
    idle={"test_b": ("the mark of test_it.py",), "test_c": ("the mark of test_it.py",)},
    covered={"the mark of test_it.py": 2},
)
SENTENCE = (
    "the mark of test_it.py judged nothing: none of its 2 tests ran a tensor operator; "
    "take it off, or call a model in one of them"
)


@pytest.mark.parametrize(
    ("outcomes", "colour"),
    [
        ([Outcome.WITHIN], "green"),
        ([Outcome.WITHIN, Outcome.UNMEASURED], "yellow"),
        ([Outcome.WITHIN, Outcome.INCONCLUSIVE], "yellow"),
        ([Outcome.UNMEASURED, Outcome.OVER], "red"),
        ([], "yellow"),
    ],
)
def test_the_closing_line_has_the_colour_of_the_worst(outcomes: list[Outcome], colour: str) -> None:
    """Green is for a session in which every budget was measured and held."""
    tally = tally_of(*outcomes)
    *_, last = summary(tally, width=80, verbosity=0)
    assert last == (tally.closing_line, colour)


def test_quiet_leaves_the_closing_line() -> None:
    """The table is for those who want to read; a heading as wide as the terminal is above it."""
    tally = tally_of(Outcome.WITHIN)
    assert [line for line, _ in summary(tally, width=80, verbosity=-1)] == [tally.closing_line]
    heading, headings, row, closing = (line for line, _ in summary(tally, width=80, verbosity=0))
    assert heading == f"{'=' * 35} budgets {'=' * 36}"
    assert headings.split()[0] == "used"
    assert row.endswith("test_0")
    assert closing == tally.closing_line


def test_what_judged_nothing_is_said_and_makes_the_end_red() -> None:
    """Also with -q, for it is why the exit code is not zero."""
    assert list(summary(VAIN, width=80, verbosity=-1)) == [
        (SENTENCE, "red"),
        (VAIN.closing_line, "red"),
    ]


def test_what_judged_nothing_can_be_said_without_a_terminal() -> None:
    """The sentences alone, for a session that has no terminal report."""
    assert list(in_vain(VAIN)) == [SENTENCE]
    assert list(in_vain(tally_of(Outcome.OVER))) == []
