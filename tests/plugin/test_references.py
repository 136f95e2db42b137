"""What a latency is held against: which callable, which test, in which phase, and when it runs."""

from __future__ import annotations

import re

import pytest

from tests.conftest import Run

NAP = """
import time

def nap(ms, x=None):
    time.sleep(ms / 1000)
    return torch.ones(2) + 1

"""
QUICK = "--nnscale-max-time=0.4"
# A step takes three times as long as a forward pass, whatever this machine does meanwhile.
BY_BACKWARD = """
import torch
from pytest_nnscale import keys
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters.effort import Effort

def timer(call, *, quantile, device):
    with torch.autograd.profiler.profile() as profile:
        call()
    seconds = 3.0 if any("Backward" in event.name for event in profile.function_events) else 1.0
    return Measurement(Metric.LATENCY, seconds, seconds, seconds)

def pytest_configure(config):
    config.stash[keys.EFFORT] = Effort(timer=timer)
"""


def order(result: pytest.RunResult) -> list[str]:
    found = (re.search(r"::(test_\w+)\S* (PASSED|FAILED)", line) for line in result.outlines)
    return [match[1] for match in found if match]


def test_two_callables_of_one_name_are_two(suite: Run) -> None:
    """The class's is held against its own, and the function's against its own."""
    result = suite(
        NAP
        + """
class Nap:
    def __init__(self, ms): self.ms = ms
    def __call__(self, x): return nap(self.ms, x)

@pytest.mark.max_latency_ms(9, relative_to=Nap(2))
class TestIt:
    @pytest.mark.max_latency_ms(0.5, relative_to=Nap(30))
    def test_it(self, nnscale):
        nnscale(lambda x: nap(5, x), torch.ones(2))
""",
        "--nnscale-max-time=1.5",
    )
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*2 budgets: 2 within*"])


def test_a_bound_method_is_the_same_each_time_it_is_read(suite: Run) -> None:
    """So the closest limit wins."""
    result = suite(
        NAP
        + """
class Nap:
    def call(self, x): return nap(4, x)

reference = Nap()

@pytest.mark.max_latency_ms(0.1, relative_to=reference.call)
class TestIt:
    @pytest.mark.max_latency_ms(9, relative_to=reference.call)
    def test_it(self, nnscale):
        nnscale(lambda x: nap(4, x), torch.ones(2))
""",
        QUICK,
    )
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*1 budget: 1 within*"])


def test_a_reference_runs_in_the_grad_mode_of_what_is_held_against_it(suite: Run) -> None:
    """A profile runs without gradients, and so does its reference."""
    result = suite(
        """
modes = set()

def reference(x):
    modes.add(torch.is_grad_enabled())
    return x + 1

@pytest.mark.max_latency_ms(99, relative_to=reference)
def test_it(nnscale):
    nnscale.profile(nn.Linear(2, 2), (torch.ones(2),))
    assert modes == {False}
    assert torch.is_grad_enabled()

@pytest.mark.max_latency_ms(99, relative_to=reference)
def test_call(nnscale):
    modes.clear()
    nnscale(nn.Linear(2, 2), torch.ones(2))
    assert modes == {True}
""",
        QUICK,
    )
    assert result.ret == 0


def test_a_reference_is_left_as_it_was(suite: Run) -> None:
    """Though it is called many times; and it never was by the test."""
    result = suite(
        """
bn = nn.BatchNorm1d(4)
other = nn.BatchNorm1d(4)
X = torch.ones(2, 4)

@pytest.mark.max_latency_ms(99, relative_to=bn)
def test_module(nnscale):
    nnscale(nn.Linear(4, 4), X)
    assert bn.num_batches_tracked == 0

@pytest.mark.max_latency_ms(99, relative_to=lambda x: other(x))
def test_closure(nnscale):
    nnscale(nn.Linear(4, 4), X)
    assert other.num_batches_tracked == 0
""",
        QUICK,
    )
    assert "AssertionError" not in str(result.stdout)
    result.stdout.fnmatch_lines(["*2 budgets:*"])


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("META", "Linear is no reference: the model is on the meta device"),
        ("nn.Linear(3, 3)", "cannot be called with the same inputs: RuntimeError"),
    ],
)
def test_a_reference_that_tells_no_time_leaves_it_unmeasured(
    suite: Run, reference: str, sentence: str
) -> None:
    """Red, with the reason."""
    result = suite(
        f"""
META = nn.Sequential(nn.Linear(4, 4, device="meta"))
reference = {reference}
call = (lambda x: META[0](x.to("meta"))) if reference is META else reference

@pytest.mark.max_latency_ms(99, relative_to=call)
def test_it(nnscale):
    nnscale(nn.Linear(4, 4), torch.ones(2, 4))
""",
        QUICK,
    )
    assert result.ret == 1
    sentence = sentence.replace("Linear", "<lambda>") if reference == "META" else sentence
    result.stdout.fnmatch_lines([f"*could not be measured*{sentence}*".replace("[", "[[]")])


def test_a_model_on_meta_is_held_against_nothing(suite: Run) -> None:
    """It computes nothing, and would be within any limit."""
    result = suite(
        """
meta = nn.Linear(4, 4, device="meta")

@pytest.mark.max_latency_ms(99, relative_to=meta)
def test_it(nnscale):
    nnscale(meta, torch.ones(2, 4, device="meta"))
""",
        QUICK,
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*could not be measured*on the meta device*"])


TRAINING = """
net = nn.Sequential(*(nn.Linear(64, 64) for _ in range(8)))
X = torch.ones(64, 64)

@pytest.mark.max_latency_ms({limit}, phase="training", relative_to="test_reference")
def test_new(nnscale):
    nnscale(net, X)

def test_reference(nnscale):
    nnscale(net, X)
"""


@pytest.mark.parametrize(("limit", "outcome"), [(2, 0), (0.3, 1)])
def test_a_training_step_is_held_against_a_training_step(
    suite: Run, limit: float, outcome: int
) -> None:
    """The same model takes about as long; a forward pass alone takes a third."""
    result = suite(TRAINING.format(limit=limit), conftest=BY_BACKWARD)
    assert result.ret == outcome
    told = "1 within, 0 over" if not outcome else "0 within, 1 over"
    result.stdout.fnmatch_lines([f"*1 budget: {told}, 0 inconclusive, 0 unmeasured*"])


def test_a_reference_with_several_calls_is_refused_in_words(suite: Run) -> None:
    """Which of them is meant is not said."""
    result = suite(
        """
@pytest.mark.max_latency_ms(9, relative_to="test_reference")
def test_new(nnscale):
    nnscale(nn.Linear(4, 4), torch.ones(2, 4))

def test_reference(nnscale):
    nnscale(nn.Linear(4, 4), torch.ones(2, 4))
    nnscale(nn.Linear(9, 9), torch.ones(2, 9))
""",
        QUICK,
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "*test_reference could not be timed: it calls nnscale 2 times*",
            "*hold it against a test*",
        ]
    )


ORDERED = """
def test_a(): pass

{first}
def test_b(nnscale):
    nnscale(nn.Linear(4, 4), torch.ones(2, 4))

def test_c(): pass

{second}
def test_d(nnscale):
    nnscale(nn.Linear(4, 4), torch.ones(2, 4))

def test_e(): pass
"""
BESIDE = "@pytest.mark.max_latency_ms(99, relative_to={!r})"


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("", BESIDE.format("test_b"), "abcde"),
        (BESIDE.format("test_d"), "", "adbce"),
        (BESIDE.format("test_d"), BESIDE.format("test_e"), "aedbc"),
    ],
)
def test_a_test_is_moved_ahead_only_where_it_would_come_too_late(
    suite: Run, first: str, second: str, found: str
) -> None:
    """And no further than needed, so that fixtures of modules are not set up anew."""
    text = ORDERED.format(first=first, second=second)
    text = text.replace("def test_e(): pass", "def test_e(): torch.ones(2) + 1")
    result = suite(text, "-v", QUICK)
    assert "".join(name[-1] for name in order(result)) == found


def test_tests_that_are_held_against_each_other_are_a_collection_error(suite: Run) -> None:
    """One of them would have to run before itself."""
    text = ORDERED.format(first=BESIDE.format("test_d"), second=BESIDE.format("test_b"))
    result = suite(text)
    assert result.ret == 4
    assert "which is itself held against this test" in str(result.stderr) + str(result.stdout)


def test_a_failed_reference_is_no_budget_that_did_not_run(suite: Run) -> None:
    """Nobody has stated one on it."""
    result = suite(
        ORDERED.format(first=BESIDE.format("test_c"), second="").replace(
            "def test_c(): pass", "def test_c(): assert False"
        ),
        QUICK,
    )
    result.stdout.fnmatch_lines(["*1 budget: 0 within, 0 over, 0 inconclusive, 1 unmeasured*"])
    assert "not run" not in str(result.stdout)


def test_only_the_tests_that_run_have_others_timed(suite: Run) -> None:
    """What -k leaves out needs nothing."""
    result = suite(
        ORDERED.format(first=BESIDE.format("test_d"), second=""), "-v", "-k", "test_c or test_d"
    )
    assert result.ret == 0
    assert order(result) == ["test_c", "test_d"]
    assert "budget" not in str(result.stdout)


def test_under_xdist_both_run_in_one_worker(suite: Run) -> None:
    """Where the tests of a file stay together."""
    text = ORDERED.format(first=BESIDE.format("test_d"), second="")
    result = suite(text, "-n2", "--dist=loadfile", QUICK, subprocess=True)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*1 budget: 1 within*"])


@pytest.mark.parametrize(
    ("own", "found"),
    [("", "test_it.py.test_b"), ('@pytest.mark.xdist_group("mine")', "mine")],
)
def test_tests_held_against_each_other_are_a_group_of_xdist(
    suite: Run, own: str, found: str
) -> None:
    """Under --dist=loadgroup, before pytest-xdist asks; a group of the user's own is taken over."""
    result = suite(
        ORDERED.format(first=BESIDE.format("test_d"), second=own),
        QUICK,
        conftest="""
def pytest_configure(config):
    config.option.loadgroup = True

def pytest_collection_modifyitems(items):
    groups = {item.name: [*item.iter_markers("xdist_group")] for item in items}
    print({name: [mark.args for mark in marks] for name, marks in groups.items() if marks})
""",
    )
    assert f"{{'test_b': [('{found}',)], 'test_d': [('{found}',)]}}" in str(result.stdout)


def test_the_time_of_a_reference_serves_for_its_own_budget(suite: Run) -> None:
    """One measurement, and two that are judged by it."""
    result = suite(
        """
calls = []

def call(x):
    calls.append(1)
    return x + 1

@pytest.mark.max_latency_ms(9, relative_to="test_reference")
def test_new(nnscale):
    count = len(calls)
    nnscale(lambda x: x + 1, torch.ones(2))

@pytest.mark.max_latency_ms(2000)
def test_reference(nnscale):
    nnscale(call, torch.ones(2))
""",
        conftest="""
from pytest_nnscale import keys
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters.effort import Effort

timed = []

def timer(call, *, quantile, device):
    timed.append(call)
    return Measurement(Metric.LATENCY, 1.0, 0.9, 1.1)

def pytest_configure(config):
    config.stash[keys.EFFORT] = Effort(timer=timer)

def pytest_sessionfinish():
    print(f"\\ntimed {len(timed)} times")
""",
    )
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*timed 2 times*"])
    result.stdout.fnmatch_lines(["*2 budgets: 2 within*"])
