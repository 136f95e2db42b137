"""Marks that arrive after collecting began: from a conftest, or while a test runs."""

from __future__ import annotations

from typing import Any

import pytest

MODEL = "\nmodel = nn.Linear(2, 2)\nx = torch.ones(1, 2)\n"
OVER = "max_flops: Linear needs 8 FLOP, budget 7 FLOP"


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["one process", "two workers"])
@pytest.mark.parametrize("hook", ["pytest_collection_modifyitems", "pytest_itemcollected"])
def test_a_conftest_can_mark_tests(suite: Any, hook: str, workers: Any) -> None:
    """Whatever the hook, and whoever runs first."""
    each = "for item in items:" if hook.endswith("items") else "if True:"
    argument = "items" if hook.endswith("items") else "item"
    conftest = f"""
    import pytest
    @pytest.hookimpl(trylast=True)
    def {hook}({argument}):
        {each}
            item.add_marker(pytest.mark.max_flops(7))
    """
    result = suite(MODEL + "\ndef test_it():\n    model(x)\n", *workers, conftest=conftest)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert OVER in result.stdout.str()
    assert "1 budget: 0 within, 1 over, 0 inconclusive, 0 unmeasured" in result.outlines


@pytest.mark.parametrize(
    "test",
    [
        "@pytest.fixture\ndef marked(request): request.node.add_marker(MARK)\n"
        "def test_it(marked): model(x)",
        "@pytest.fixture(autouse=True)\ndef marked(request): request.applymarker(MARK)\n"
        "def test_it(nnscale): nnscale(model, x)",
        "def test_it(request):\n    request.node.add_marker(MARK)\n    model(x)",
        "@pytest.mark.max_params(6)\n"
        "def test_it(request):\n    request.node.add_marker(MARK)\n    model(x)",
    ],
    ids=["a fixture", "a fixture before nnscale", "the body", "the body, beside another"],
)
def test_a_mark_that_arrives_while_the_test_runs_is_judged(suite: Any, test: str) -> None:
    """It is on the test when it ends, and that is what counts."""
    result = suite(f"{MODEL}\nMARK = pytest.mark.max_flops(7)\n{test}\n")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert OVER in result.stdout.str()
    assert "1 over" in result.stdout.str()


def test_a_mark_that_arrives_after_the_call_it_was_meant_for_is_red(suite: Any) -> None:
    """The fixture's call is over; the budget must not look as if it had judged it."""
    result = suite(
        MODEL
        + """
def test_it(nnscale, request):
    nnscale(model, x)
    request.node.add_marker(pytest.mark.max_flops(100))
"""
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "no call of nnscale measured it" in result.stdout.str()


def test_a_late_mistake_fails_the_test(suite: Any) -> None:
    """Collecting is over, so that it cannot be a collection error."""
    result = suite(
        MODEL
        + """
def test_it(request):
    request.node.add_marker(pytest.mark.max_flops("8 GB"))
"""
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "unknown unit 'GB'" in result.stdout.str()
    assert "Traceback" not in result.stdout.str()
