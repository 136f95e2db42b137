"""Budgets of classes, modules and globs: who wins, whom they judge, when they are red."""

from __future__ import annotations

from typing import Any

import pytest

MODEL = "\nmodel = nn.Linear(2, 2)\nx = torch.ones(1, 2)\n"


def test_the_closest_mark_wins(suite: Any) -> None:
    """Parametrisation over function over class over module over glob."""
    result = suite(
        MODEL
        + """
pytestmark = pytest.mark.max_flops(1)

def test_module():
    model(x)

@pytest.mark.max_flops(2)
class TestClass:
    def test_class(self):
        model(x)

    @pytest.mark.max_flops(3)
    def test_function(self):
        model(x)

    @pytest.mark.max_flops(3)
    @pytest.mark.parametrize("a", [pytest.param(0, marks=pytest.mark.max_flops(4))])
    def test_parameter(self, a):
        model(x)
""",
        ini="nnscale_budgets = test_it.py*: max_params=5, max_flops=100",
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    for limit in (1, 2, 3, 4):
        assert f"needs 8 FLOP, budget {limit} FLOP" in text
    assert result.outlines.count("max_params: Linear needs 6, budget 5 (+1, +20.0 %)") == 4
    assert "the budget comes from nnscale_budgets 'test_it.py*'" in text
    assert "8 budgets: 0 within, 8 over" in text


def test_a_glob_budgets_tests_without_editing_them(suite: Any) -> None:
    """The flag takes the place of the ini key; a later rule wins."""
    source = MODEL + "\ndef test_it():\n    model(x)\n"
    assert suite(source, ini="nnscale_budgets = *: max_flops=8").ret == 0
    over = suite(source, "--nnscale-budgets=*: max_flops=7", ini="nnscale_budgets = *: max_flops=8")
    assert over.ret == pytest.ExitCode.TESTS_FAILED
    later = suite(source, ini="nnscale_budgets =\n    *: max_flops=7\n    *it: max_flops=8")
    assert later.ret == 0


def test_an_inherited_budget_leaves_tests_without_operators_alone(suite: Any) -> None:
    """Only tests that ran a model are judged."""
    result = suite(
        MODEL
        + """
pytestmark = pytest.mark.max_flops(8)
def test_model():
    model(x)
def test_no_model():
    assert True
def test_no_model_and_not_repeatable(done=[]):
    done.append(1)
    assert len(done) == 1
"""
    )
    assert result.ret == 0
    result.assert_outcomes(passed=3)
    assert "1 budget: 1 within, 0 over, 0 inconclusive, 0 unmeasured" in result.outlines


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["one process", "two workers"])
def test_an_inherited_budget_that_judged_nothing_is_red(suite: Any, workers: Any) -> None:
    """A gate on a module that runs no model is off, and must not look on."""
    result = suite(
        """
    pytestmark = pytest.mark.max_flops(8)
    def test_a():
        pass
    def test_b():
        pass
    """,
        *workers,
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=2)
    assert "judged nothing: none of its 2 tests ran a tensor operator" in result.stdout.str()


def test_a_part_of_the_tests_cannot_tell_that_a_budget_is_vain(suite: Any) -> None:
    """With -k the test that runs a model may be among those left out."""
    result = suite(
        MODEL
        + """
pytestmark = pytest.mark.max_flops(8)
def test_model():
    model(x)
def test_other():
    pass
""",
        "-k",
        "other",
    )
    assert result.ret == 0
    assert "judged nothing" not in result.stdout.str()
