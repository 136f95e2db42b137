"""One call against another, in one test: nnscale.compare, and latencies relative to something."""

from __future__ import annotations

import pytest

MODELS = """
import time
import pytest
import torch
from torch import nn

class Nap(nn.Module):
    def __init__(self, ms):
        super().__init__()
        self.ms = ms
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        time.sleep(self.ms / 1000)
        return x + 1

def nap(x=None):
    time.sleep(0.002)

fast, slow = Nap(2), Nap(6)
X = torch.ones(3)
"""


def run(pytester: pytest.Pytester, tests: str, *args: str) -> pytest.RunResult:
    pytester.makepyfile(test_it=f"{MODELS}\n{tests}")
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", "--nnscale-max-time=2", *args)


def test_what_is_not_slower_passes_and_both_outputs_come_back(pytester: pytest.Pytester) -> None:
    """A third of the time is no more than all of it; and both models are as they were."""
    result = run(
        pytester,
        """
def test_it(nnscale):
    new, old, ratio = nnscale.compare(fast, slow, X, max_ratio=1.1)
    assert torch.equal(new, X + 1) and torch.equal(old, X + 1)
    assert ratio.upper < 1
    assert fast.calls.item() == slow.calls.item() == 1
""",
    )
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*1 budget: 1 within, 0 over, 0 inconclusive, 0 unmeasured*"])


def test_what_is_slower_fails_and_says_by_how_much(pytester: pytest.Pytester) -> None:
    """Without any mark on the test."""
    result = run(
        pytester,
        """
def test_it(nnscale):
    nnscale.compare(slow, fast, X, max_ratio=1.1)
""",
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "*nnscale.compare: Nap beside Nap needs * x (between * x and * x), budget 1.10 x (+*",
            "*note: * ms beside * ms, * turns*",
        ]
    )


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ("nnscale.compare(fast, slow, X, max_ratio=0)", "max_ratio=0; it is a number above zero"),
        ("nnscale.compare(fast, slow, X, max_ratio='2')", "max_ratio='2'; it is a number"),
        ("nnscale.compare(fast, 3, X)", "a workload is a model or a function, not int"),
    ],
)
def test_a_bad_comparison_is_refused(pytester: pytest.Pytester, call: str, sentence: str) -> None:
    """At the line that made it."""
    result = run(pytester, f"def test_it(nnscale):\n    {call}\n")
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"*BadWorkload: {sentence}*"])


def test_a_call_that_raises_shows_its_own_error(pytester: pytest.Pytester) -> None:
    """And nothing is judged."""
    result = run(
        pytester,
        """
def test_it(nnscale):
    nnscale.compare(fast, lambda x: 1 / 0, X)
""",
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*ZeroDivisionError*"])


def test_without_time_it_is_unmeasured_and_red(pytester: pytest.Pytester) -> None:
    """Twelve turns do not fit."""
    result = run(
        pytester,
        "def test_it(nnscale):\n    nnscale.compare(fast, slow, X, max_ratio=9)\n",
        "--nnscale-max-time=0.02",
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "*nnscale.compare: Nap beside Nap could not be measured, budget 9.00 x: too few turns*",
            "*give it longer: --nnscale-max-time=*",
        ]
    )


def test_other_budgets_of_the_test_are_not_taken_for_measured(pytester: pytest.Pytester) -> None:
    """compare() times; whoever wants FLOPs judged calls nnscale(model, x)."""
    result = run(
        pytester,
        """
@pytest.mark.max_params(10)
def test_it(nnscale):
    nnscale.compare(fast, slow, X, max_ratio=2)
""",
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*max_params: * could not be measured*no call of nnscale*"])


@pytest.mark.parametrize(("limit", "outcome"), [(9, 0), (1.5, 1)])
def test_a_latency_may_be_relative_to_a_callable(
    pytester: pytest.Pytester, limit: float, outcome: int
) -> None:
    """It gets the inputs of the call; the machine's speed drops out."""
    result = run(
        pytester,
        f"""
@pytest.mark.max_latency_ms({limit}, relative_to=nap)
def test_it(nnscale):
    nnscale(slow, X)
""",
    )
    assert result.ret == outcome
    if outcome:
        result.stdout.fnmatch_lines(
            ["*max_latency_ms (relative to test_it.nap): Nap needs * x (between*, budget 1.50 x*"]
        )


@pytest.mark.parametrize(("limit", "outcome"), [(9, 0), (1.5, 1)])
def test_the_body_of_a_test_may_be_relative_to_a_callable(
    pytester: pytest.Pytester, limit: float, outcome: int
) -> None:
    """Which is then called without inputs."""
    result = run(
        pytester,
        f"@pytest.mark.max_latency_ms({limit}, relative_to=nap)\ndef test_it():\n    slow(X)\n",
    )
    assert result.ret == outcome


REFERENCE = """
@pytest.mark.max_latency_ms({limit}, relative_to={name!r})
def test_new(nnscale):
    nnscale(slow, X)

def test_reference(nnscale):
    nnscale(fast, X)
"""


@pytest.mark.parametrize(("limit", "outcome"), [(9, 0), (1.5, 1)])
@pytest.mark.parametrize("name", ["test_reference", "test_it.py::test_reference"])
def test_a_latency_may_be_relative_to_another_test(
    pytester: pytest.Pytester, name: str, limit: float, outcome: int
) -> None:
    """Which is run before it, timed, and judged by nothing."""
    result = run(pytester, REFERENCE.format(limit=limit, name=name), "-v")
    assert result.ret == outcome
    result.stdout.fnmatch_lines(["*test_reference PASSED*", "*test_new *"])
    told = "0 within, 1 over" if outcome else "1 within, 0 over"
    result.stdout.fnmatch_lines([f"*1 budget: {told}, 0 inconclusive, 0 unmeasured*"])


def test_a_reference_that_did_not_run_leaves_it_unmeasured(pytester: pytest.Pytester) -> None:
    """Red, with what to do."""
    result = run(pytester, REFERENCE.format(limit=9, name="test_reference"), "-k", "new")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["*could not be measured*test_reference was not timed in this process before*"]
    )


def test_a_reference_that_fails_leaves_it_unmeasured(pytester: pytest.Pytester) -> None:
    """What it took is not known."""
    tests = REFERENCE.format(limit=9, name="test_reference") + "    assert False\n"
    result = run(pytester, tests)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*test_reference was not timed in this process before*"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("2, relative_to='test_nothing'", "relative_to='test_nothing': no such test"),
        ("2, relative_to='test_it'", "relative_to='test_it' is the test itself"),
        ("2, relative_to=3", "relative_to=3; it is a callable, or the name of a test"),
        ("2, relative_to=''", "relative_to=''; it is a callable, or the name of a test"),
        ("2, relative_to=nap, quantile=0.9", "quantile= with relative_to="),
        ("2, relative_to=nap, phase='training'", "relative_to= a callable is for single calls"),
        ("'2 ms', relative_to=nap", "*unknown unit 'ms'; ratio takes *x*"),
    ],
)
def test_a_bad_reference_is_a_collection_error(
    pytester: pytest.Pytester, arguments: str, sentence: str, *workers: str
) -> None:
    """Exit code 4, and no test runs."""
    result = run(
        pytester,
        f"@pytest.mark.max_latency_ms({arguments})\ndef test_it():\n    slow(X)\n",
        *workers,
    )
    assert result.ret == 4
    lines = [*result.outlines, *result.errlines]
    assert any(sentence.strip("*").split("*")[0] in line for line in lines), lines


def test_a_bad_reference_is_a_collection_error_of_the_workers_too(
    pytester: pytest.Pytester,
) -> None:
    """Told by the controller."""
    arguments = "2, relative_to='test_nothing'"
    sentence = "relative_to='test_nothing': no such test"
    test_a_bad_reference_is_a_collection_error(pytester, arguments, sentence, "-n2")
