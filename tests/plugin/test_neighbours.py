"""What else runs in a session: the plugin keeps to its own business beside it."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest

MODEL = "\nmodel = nn.Linear(2, 2)\nx = torch.ones(1, 2)\n"
MIXED = (
    MODEL
    + """
@pytest.mark.max_flops(8)
def test_within(nnscale):
    nnscale(model, x)

@pytest.mark.max_flops(7)
@pytest.mark.max_params(6)
def test_over(nnscale):
    nnscale(model, x)

@pytest.mark.max_flops(7)
def test_fails():
    assert 0

@pytest.mark.skip
@pytest.mark.max_flops(7)
def test_skips():
    pass

@pytest.mark.max_flops(7)
@pytest.mark.max_params(7)
def test_no_setup(missing):
    pass
"""
)
LINE = "7 budgets: 2 within, 1 over, 0 inconclusive, 0 unmeasured, 4 not run"


def test_xdist_gives_the_same_verdicts_and_one_summary(suite: Any) -> None:
    """Two workers, one controller, one closing line."""
    for args in ((), ("-n2",)):
        result = suite(MIXED, *args)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        assert result.outlines.count(LINE) == 1, result.stdout.str()
        assert "needs 8 FLOP, budget 7 FLOP" in result.stdout.str()


def test_xfail_accepts_a_budget_as_its_reason(suite: Any) -> None:
    """xfail, strict and raises= see the failure as any other."""
    result = suite(
        MODEL
        + """
from pytest_nnscale import BudgetExceeded

@pytest.mark.xfail
@pytest.mark.max_flops(7)
def test_plain(nnscale):
    nnscale(model, x)

@pytest.mark.xfail(raises=BudgetExceeded, strict=True)
@pytest.mark.max_flops(7)
def test_raises(nnscale):
    nnscale(model, x)

@pytest.mark.xfail(raises=ValueError)
@pytest.mark.max_flops(7)
def test_another_reason(nnscale):
    nnscale(model, x)

@pytest.mark.xfail(strict=True)
@pytest.mark.max_flops(8)
def test_strict(nnscale):
    nnscale(model, x)
"""
    )
    result.assert_outcomes(xfailed=2, failed=2)
    assert "4 budgets: 1 within, 1 over, 0 inconclusive, 0 unmeasured, 2 not run" in result.outlines


def test_a_dict_gives_each_parametrisation_its_limit(suite: Any) -> None:
    """Keyed by the id that the report shows."""
    result = suite("""
    @pytest.mark.parametrize("width", [2, 3])
    @pytest.mark.max_params({"2": 6, "3": "11"})
    def test_it(nnscale, width):
        nnscale(nn.Linear(width, width), torch.ones(1, width))
    """)
    result.assert_outcomes(passed=1, failed=1)
    assert "needs 12, budget 11" in result.stdout.str()


def test_session_fixtures_and_many_tests_share_a_model(suite: Any) -> None:
    """The model that one test measured is as it was for the next."""
    result = suite("""
    @pytest.fixture(scope="session")
    def model():
        return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    @pytest.mark.max_params(10)
    @pytest.mark.parametrize("again", [0, 1])
    def test_it(model, again):
        model(torch.ones(2, 2))
    def test_after(model):
        assert model[1].num_batches_tracked == 2
    """)
    result.assert_outcomes(passed=3)


def test_junit_has_each_measurement_as_a_property(suite: Any, pytester: Any) -> None:
    """The JSON of the verdict, in the test case that it belongs to."""
    suite(MIXED, "--junit-xml=out.xml")
    cases = ElementTree.parse(pytester.path / "out.xml").iter("testcase")
    found = {
        case.get("name"): [json.loads(p.get("value")) for p in case.iter("property") if p.get("name") == "nnscale.verdict"]
        for case in cases
    }  # fmt: skip
    assert [v["outcome"] for v in found["test_within"]] == ["within"]
    assert {v["budget"]["metric"]: v["measurement"]["value"] for v in found["test_over"]} == {
        "flops": 8,
        "params": 6,
    }


def test_lf_runs_what_was_over_again(suite: Any) -> None:
    """A budget's failure is a failure to the cache as well."""
    source = MIXED.split("@pytest.mark.max_flops(7)\ndef test_fails")[0]
    assert suite(source, cache=True).ret == 1
    again = suite(None, "--lf", cache=True)
    again.assert_outcomes(failed=1)
    assert "2 budgets: 1 within, 1 over, 0 inconclusive, 0 unmeasured" in again.outlines


def test_a_rerun_counts_once(suite: Any) -> None:
    """pytest-rerunfailures: only the last try stands in the closing line."""
    result = suite(MODEL + """
tries = []
@pytest.mark.max_flops(8)
def test_it(nnscale):
    tries.append(1)
    nnscale(model, x if len(tries) == 3 else torch.ones(2, 2))
""", "--reruns=2")  # fmt: skip
    result.assert_outcomes(passed=1)
    assert "1 budget: 1 within, 0 over, 0 inconclusive, 0 unmeasured" in result.outlines


def test_without_a_terminal_the_exit_code_still_tells(suite: Any) -> None:
    """-p no:terminal prints nothing, and is red all the same."""
    over = MODEL + "@pytest.mark.max_flops(7)\ndef test_over(nnscale): nnscale(model, x)\n"
    assert suite(over, "-p", "no:terminal").ret == pytest.ExitCode.TESTS_FAILED
    assert suite(over.replace("7", "8"), "-p", "no:terminal").ret == pytest.ExitCode.OK
    vain = "pytestmark = pytest.mark.max_flops(8)\ndef test_it():\n    pass\n"
    assert suite(vain, "-p", "no:terminal").ret == pytest.ExitCode.TESTS_FAILED


def test_quiet_keeps_the_line_alone(suite: Any) -> None:
    """-q drops the table."""
    result = suite(MIXED, "-q")
    assert LINE in result.outlines
    assert "measured / limit" not in result.stdout.str()


def test_verbose_shows_more_modules(suite: Any) -> None:
    """Every module with -vv, the largest without."""
    source = """
    layers = [nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(7)]
    @pytest.mark.max_flops(7)
    def test_it(nnscale):
        nnscale(nn.Sequential(*layers), torch.ones(1, 2))
    """
    plain, all_of_them = suite(source).stdout.str(), suite(source, "-vv").stdout.str()
    assert plain.count("16 FLOP") == 5
    assert "  6.1  " not in plain
    assert "  6.1  " in all_of_them


def test_a_session_without_budgets_says_nothing(suite: Any) -> None:
    """Tests that use no mark see no line, and the fixture is there to call."""
    result = suite(
        MODEL + "\ndef test_it(nnscale):\n    assert nnscale(model, x).shape == (1, 2)\n"
    )
    result.assert_outcomes(passed=1)
    assert "within" not in result.stdout.str()


def test_marks_are_registered_and_documented(suite: Any) -> None:
    """--strict-markers knows them, --markers explains them."""
    assert suite(MIXED, "--strict-markers", "--collect-only").ret == 0
    shown = suite(MIXED, "--markers").stdout.str()
    for name in ("params", "flops", "macs", "size_mb", "memory_mb", "kernels", "latency_ms"):
        assert f"@pytest.mark.max_{name}(limit" in shown
    assert "@pytest.mark.max_energy_j(limit" in shown


def test_numbers_are_the_same_beside_a_compiled_submodule(suite: Any) -> None:
    """A model that holds a compiled part runs it compiled and counts it eager."""
    result = suite("""
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 2)
            self.b = torch.compile(nn.Linear(2, 2), backend="eager", fullgraph=True)
        def forward(self, x):
            return self.b(self.a(x))
    @pytest.mark.max_flops(16)
    @pytest.mark.max_params(12)
    def test_at(nnscale):
        nnscale(Half(), torch.ones(1, 2))
    @pytest.mark.max_flops(15)
    def test_below(nnscale):
        nnscale(Half(), torch.ones(1, 2))
    """)
    result.assert_outcomes(passed=1, failed=1)
    assert "Half needs 16 FLOP, budget 15 FLOP" in result.stdout.str()
