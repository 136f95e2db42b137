"""One call against another, in one test: nnscale.compare, and latencies relative to something."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from pytest_nnscale.budget import Budget, Outcome, judge
from pytest_nnscale.called import observe_call
from pytest_nnscale.calling import NnscaleCaller
from pytest_nnscale.comparing import measure_beside
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters.effort import Effort
from pytest_nnscale.meters.latency import measure_latency
from pytest_nnscale.timing.clock import FakeClock
from pytest_nnscale.workload import Workload

pytestmark = pytest.mark.usefixtures("_lasting_imports")

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
    assert ratio.lower <= ratio.value < 1 and ratio.upper <= 1.1
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


@pytest.mark.parametrize(
    ("calls", "reason"),
    [
        ("meta, meta, torch.ones(2, 4, device='meta')", "the model is on the meta device"),
        ("lambda: None, lambda: None", "the call ran no tensor operator"),
        ("generator, generator, X", "the call ran no tensor operator"),
        ("fast, meta_inside, X", "is no reference: the model is on the meta device"),
    ],
)
def test_what_computes_nothing_is_not_compared(
    pytester: pytest.Pytester, calls: str, reason: str
) -> None:
    """It takes no time, and would pass for being no slower."""
    result = run(
        pytester,
        f"""
meta = nn.Linear(4, 4, device="meta")

def meta_inside(x):
    return meta(torch.ones(2, 4, device="meta"))

def generator(x):
    yield x + 1

def test_it(nnscale):
    nnscale.compare({calls}, max_ratio=99)
""",
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"*nnscale.compare:*could not be measured*{reason}*"])


def test_what_the_calls_use_is_left_after_one_call_of_each(pytester: pytest.Pytester) -> None:
    """Also what no module among the arguments says: of a closure, and of a backward pass."""
    result = run(
        pytester,
        """
bn, net = nn.BatchNorm1d(4), nn.Linear(4, 4)

def step(x):
    net(x).sum().backward()

def test_closures(nnscale):
    nnscale.compare(lambda x: bn(x), lambda x: x + 1, torch.ones(2, 4), max_ratio=1e6)
    assert bn.num_batches_tracked == 1

def test_gradients(nnscale):
    nnscale.compare(step, step, torch.ones(2, 4), max_ratio=99)
    assert net.weight.grad.eq(4).all()  # 2 rows, for each of the two calls
""",
        "--nnscale-max-time=0.4",
    )
    assert result.ret == 0


def test_both_get_the_same_inputs_and_these_are_put_back(pytester: pytest.Pytester) -> None:
    """Though a call writes them; what it returns keeps what it was."""
    result = run(
        pytester,
        """
def drop(x):
    return nn.functional.dropout(x, 0.5)

def append(some):
    some.append(torch.ones(2) + 1)
    return len(some)

def test_in_place(nnscale):
    x, seen = torch.tensor([-1.0, 2.0]), []

    def old(x):
        seen.append(x.tolist())
        return torch.relu(x)

    new, old, _ = nnscale.compare(torch.relu_, old, x, max_ratio=99)
    assert seen[0] == [-1, 2] == x.tolist()
    assert new.tolist() == old.tolist() == [0, 2]

def test_randomness(nnscale):
    new, old, _ = nnscale.compare(drop, drop, torch.ones(99), max_ratio=99)
    assert torch.equal(new, old)

def test_containers(nnscale):
    some = []
    assert nnscale.compare(append, append, some, max_ratio=99)[:2] == (1, 1)
    assert some == []
""",
        "--nnscale-max-time=0.4",
    )
    assert result.ret == 0


def test_inputs_that_are_written_are_told_of(pytester: pytest.Pytester) -> None:
    """Each turn goes on from what the last one left, which may take longer or shorter."""
    result = run(
        pytester,
        """
def test_it(nnscale):
    nnscale.compare(lambda x: (fast(x), x.add_(1)), lambda x: x.add_(1), X, max_ratio=1.1)
""",
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*note: the calls write their inputs, and each goes on from*"])


def test_a_failed_comparison_names_what_to_change(pytester: pytest.Pytester) -> None:
    """There is no budget to raise."""
    result = run(
        pytester, "def test_it(nnscale):\n    nnscale.compare(slow, fast, X, max_ratio=1.1)\n"
    )
    result.stdout.fnmatch_lines(["*make the first call faster, or raise max_ratio="])


def test_the_same_code_is_no_slower_without_a_ratio_given(pytester: pytest.Pytester) -> None:
    """The default leaves room: with none it could never be decided."""
    result = run(pytester, "def test_it(nnscale):\n    nnscale.compare(fast, fast, X)\n")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*1 budget: 1 within, 0 over, 0 inconclusive, 0 unmeasured*"])


def test_a_comparison_shows_that_it_goes_on() -> None:
    """The announcer is told of a budget that is sampled, and after the calls for real."""
    budgets: list[Budget] = []
    calls: list[str] = []

    @contextmanager
    def announce(some: Sequence[Budget], subject: str) -> Iterator[None]:
        budgets.extend(some)
        calls.append(subject)
        yield

    def call() -> torch.Tensor:
        calls.append("call")
        return torch.ones(2) + 1

    caller = NnscaleCaller((), Effort(max_time_s=0.05), announce, lambda *_: {})
    caller.compare(call, call)
    assert calls[:3] == ["call", "call", "call beside call"]
    assert [budget.metric.sampled for budget in budgets] == [True]


ONE = Budget(Metric.RATIO, 1.5, relative_to="other")


@pytest.mark.parametrize(
    ("own", "outcome"),
    [((1.0, 1.3), Outcome.WITHIN), ((1.8, 2.0), Outcome.OVER), ((1.45, 1.5), "inconclusive")],
)
def test_the_ratio_to_what_was_timed_before_is_sampled_until_it_is_decided(
    own: tuple[float, float], outcome: Outcome | str
) -> None:
    """By the ends of both intervals; each is taken so surely that both are as sure as was asked."""
    reference = Measurement(Metric.LATENCY, 1.0, 0.9, 1.1)
    asked: list[dict[str, Any]] = []

    def measure_latency(_call: object, **how: Any) -> Measurement:
        asked.append(how)
        return Measurement(Metric.LATENCY, sum(own) / 2, *own)

    seen = observe_call(Workload(torch.relu, (torch.ones(2),)))[1]
    seen = replace(seen, references={("other", "inference", None): reference})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pytest_nnscale.meters.latency.measure_latency", measure_latency)
        found = measure_beside(seen, ONE, Effort(confidence=0.98))
    (how,) = asked
    assert how["limit_s"] == pytest.approx((1.35, 1.65))
    assert how["confidence"] == pytest.approx(0.99)
    assert (found.lower, found.upper) == pytest.approx((own[0] / 1.1, own[1] / 0.9))
    assert judge(ONE, found) in (outcome, Outcome.INCONCLUSIVE if outcome == "inconclusive" else 0)


def test_a_limit_that_is_not_known_exactly_is_decided_beyond_both_its_ends() -> None:
    """Between them nothing is, and the sampling goes on."""
    ends: list[float] = []
    for duration_s in (0.010, 0.0145):
        clock = FakeClock(itertools.repeat(duration_s))
        found = measure_latency(clock.work, clock=clock, limit_s=(0.014, 0.015), max_time_s=2)
        ends.append(clock.time_s)
        assert found.value == pytest.approx(duration_s)
    assert ends[0] < 0.5 < 1.5 < ends[1]


def test_a_stand_in_for_the_meter_times_what_is_held_against_a_test() -> None:
    """As the rounds of a benchmark do: they are there, and nothing is timed twice."""
    reference = Measurement(Metric.LATENCY, 1.0, 1.0, 1.0)
    seen = observe_call(Workload(torch.relu, (torch.ones(2),)))[1]
    seen = replace(seen, references={("other", "inference", None): reference})

    def timer(_call: object, **_how: Any) -> Measurement:
        return Measurement(Metric.LATENCY, 1.2, 1.1, 1.3)

    assert measure_beside(seen, ONE, Effort(timer=timer)).value == 1.2
