"""Without the fixture the body of a test is the workload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run

MODEL = (
    "\nmodel = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))\nx = torch.ones(1, 8)\n"
)


def test_the_body_is_judged(suite: Any) -> None:
    """A mark is all it takes, and the report says what was counted."""
    result = suite(
        MODEL
        + """
@pytest.mark.max_flops(384)
@pytest.mark.max_params(212)
def test_at():
    assert model(x).shape == (1, 4)

@pytest.mark.max_flops(383)
def test_below():
    model(x)
"""
    )
    result.assert_outcomes(passed=1, failed=1)
    text = result.stdout.str()
    assert "max_flops: Sequential needs 384 FLOP, budget 383 FLOP (+1 FLOP, +0.3 %)" in text
    assert "note: the whole test body was measured, its own numerics included" in text


def test_the_first_run_is_unobserved_and_prints_once(suite: Any) -> None:
    """No dispatch mode is active in the run whose outcome stands."""
    result = suite("""
    from torch.utils._python_dispatch import _get_current_dispatch_mode
    seen = []
    @pytest.mark.max_flops(100)
    def test_it():
        print("said once")
        seen.append(_get_current_dispatch_mode())
        torch.ones(2, 2) @ torch.ones(2, 2)
    def test_after():
        assert seen[0] is None
        assert seen[1] is not None
        assert len(seen) == 2
    """, "-s")  # fmt: skip
    result.assert_outcomes(passed=2)
    assert result.stdout.str().count("said once") == 1


def test_fixtures_are_not_rebuilt(suite: Any) -> None:
    """The second run gets the fixtures of the first."""
    result = suite("""
    built = []
    @pytest.fixture
    def model():
        built.append(1)
        return nn.Linear(2, 2)
    @pytest.mark.max_flops(8)
    def test_it(model):
        model(torch.ones(1, 2))
        assert built == [1]
    """)
    result.assert_outcomes(passed=1)


def test_a_body_that_cannot_run_twice_is_red_with_the_remedy(suite: Any) -> None:
    """What was not measured is no pass."""
    result = suite("""
    done = []
    @pytest.mark.max_flops(100)
    def test_it():
        nn.Linear(2, 2)(torch.ones(1, 2))
        done.append(1)
        assert len(done) == 1, "only once"
    """)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    assert "the test body cannot run twice: AssertionError: only once" in text
    assert "use the fixture" in text


def test_torch_in_another_thread_is_red_not_partial(suite: Any) -> None:
    """A dispatch mode does not see other threads, so no count is reported."""
    result = suite("""
    import threading
    @pytest.mark.max_flops(100)
    def test_it():
        thread = threading.Thread(target=lambda: nn.Linear(2, 2)(torch.ones(1, 2)))
        thread.start()
        thread.join()
    """)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "thread" in result.stdout.str()
    assert "1 budget: 0 within, 0 over, 0 inconclusive, 1 unmeasured" in result.outlines


def test_params_are_of_every_module_called(suite: Any) -> None:
    """Two models in one body: the union of their parameters, a shared one once."""
    result = suite("""
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    b.weight = a.weight
    @pytest.mark.max_params(8)
    def test_at():
        b(a(a(torch.ones(1, 2))))
    @pytest.mark.max_params(7)
    def test_below():
        b(a(torch.ones(1, 2)))
    """)
    result.assert_outcomes(passed=1, failed=1)
    assert "Linear + Linear needs 8, budget 7" in result.stdout.str()


def test_a_training_step_happens_once_as_far_as_the_model_can_tell(suite: Any) -> None:
    """Running statistics, weights and the step count are those of one plain run."""
    result = suite("""
    def build():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        return model, torch.optim.SGD(model.parameters(), lr=0.1)

    def step(model, optimiser):
        optimiser.zero_grad()
        model(torch.arange(8.0).reshape(2, 4)).sum().backward()
        optimiser.step()

    model, optimiser = build()

    @pytest.mark.max_flops("1 MFLOP", phase="training")
    @pytest.mark.max_latency_ms(1_000, phase="training")
    def test_step():
        torch.manual_seed(1)
        step(model, optimiser)

    def test_after():
        plain, its_optimiser = build()
        torch.manual_seed(1)
        step(plain, its_optimiser)
        for name, kept in plain.state_dict().items():
            assert torch.equal(model.state_dict()[name], kept), name
    """, "--nnscale-max-time=3")  # fmt: skip
    result.assert_outcomes(passed=2)


def test_an_async_body_is_counted_and_not_timed(suite: Any) -> None:
    """Its coroutine runs, rather than being made and dropped."""
    result = suite(
        MODEL
        + """
@pytest.mark.asyncio
@pytest.mark.max_flops(383)
async def test_flops():
    model(x)

@pytest.mark.asyncio
@pytest.mark.max_latency_ms(1_000)
async def test_latency():
    model(x)
"""
    )
    result.assert_outcomes(failed=2)
    text = result.stdout.str()
    assert "needs 384 FLOP, budget 383 FLOP" in text
    assert "the body of an async test cannot be timed" in text


def test_a_unittest_body_is_counted_and_not_timed(suite: Any) -> None:
    """A failure of a unittest case does not raise through the hook, ours does."""
    result = suite("""
    import unittest
    class TestModel(unittest.TestCase):
        def setUp(self):
            self.model = nn.Linear(2, 2)
        @pytest.mark.max_flops(7)
        def test_over(self):
            self.assertEqual(self.model(torch.ones(1, 2)).shape, (1, 2))
        @pytest.mark.max_flops(8)
        def test_within(self):
            self.model(torch.ones(1, 2))
        @pytest.mark.max_latency_ms(1_000)
        def test_latency(self):
            self.model(torch.ones(1, 2))
        @pytest.mark.max_flops(1)
        def test_own_failure(self):
            self.model(torch.ones(1, 2))
            self.assertEqual(1, 2)
        @pytest.mark.max_flops(1)
        def test_skips(self):
            self.skipTest("not today")
    """)
    result.assert_outcomes(passed=1, failed=3, skipped=1)
    text = result.stdout.str()
    assert "needs 8 FLOP, budget 7 FLOP" in text
    assert "the body of a unittest case cannot be timed" in text
    assert "AssertionError: 1 != 2" in text
    assert "5 budgets: 1 within, 1 over, 0 inconclusive, 1 unmeasured, 2 not run" in result.outlines


def test_a_fullgraph_compiled_model_runs_compiled_and_is_counted(suite: Any) -> None:
    """The run that stands is compiled; the count comes from its eager self."""
    result = suite("""
    graphs = []
    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward
    model = torch.compile(nn.Linear(2, 2), fullgraph=True, backend=backend)
    @pytest.mark.max_flops(8)
    @pytest.mark.max_params(6)
    def test_body():
        model(torch.ones(1, 2))
    @pytest.mark.max_flops(8)
    @pytest.mark.max_params(6)
    def test_fixture(nnscale):
        nnscale(model, torch.ones(1, 2))
    def test_after():
        assert len(graphs) == 1
    """)
    result.assert_outcomes(passed=3)


def test_a_scripted_model_is_counted(suite: Any) -> None:
    """Operators of TorchScript are dispatched like any other."""
    result = suite("""
    model = torch.jit.script(nn.Linear(2, 2))
    @pytest.mark.max_flops(8)
    @pytest.mark.max_params(6)
    def test_at(nnscale):
        nnscale(model, torch.ones(1, 2))
    @pytest.mark.max_flops(7)
    def test_below():
        model(torch.ones(1, 2))
    """, "-W", "ignore::DeprecationWarning", "-W", "ignore::FutureWarning")  # fmt: skip
    result.assert_outcomes(passed=1, failed=1)


def test_the_second_run_leaves_no_trace_in_the_report(suite: Any) -> None:
    """Properties and output of the first run are there once."""
    result = suite(
        """
    import os, sys
    @pytest.mark.max_flops(8)
    def test_it(record_property):
        record_property("mine", 1)
        print("to stdout")
        print("to stderr", file=sys.stderr)
        os.write(2, b"past sys.stderr\\n")
        nn.Linear(2, 2)(torch.ones(1, 2))
    """,
        "-rP",
        "--junitxml=report.xml",
        subprocess=True,
    )
    result.assert_outcomes(passed=1)
    shown = result.stdout.str() + result.stderr.str()
    for text in ("to stdout", "to stderr", "past sys.stderr"):
        assert shown.count(text) == 1, text
    assert Path("report.xml").read_text(encoding="utf-8").count('name="mine"') == 1


def test_unittest_subtests_are_reported_once(suite: Any) -> None:
    """The second run of the body has its subtests to itself."""
    source = """
    import unittest
    class TestIt(unittest.TestCase):
        MARK
        def test_it(self):
            for n in (1, 2):
                with self.subTest(n=n):
                    nn.Linear(2, 2)(torch.ones(n, 2))
    """
    plain = suite(source.replace("MARK", ""), "-v")
    marked = suite(source.replace("MARK", "@pytest.mark.max_flops(24)"), "-v")
    assert marked.ret == pytest.ExitCode.OK
    assert marked.stdout.str().count("SUBPASS") == plain.stdout.str().count("SUBPASS")
    assert "1 budget: 1 within, 0 over, 0 inconclusive, 0 unmeasured" in marked.outlines


def test_a_unittest_case_that_fails_when_repeated_is_red(suite: Any) -> None:
    """It keeps its failure to itself, and must not pass for measured."""
    result = suite("""
    import unittest
    class TestIt(unittest.TestCase):
        runs = 0
        @pytest.mark.max_flops(8)
        def test_it(self):
            TestIt.runs += 1
            nn.Linear(2, 2)(torch.ones(1, 2))
            self.assertEqual(TestIt.runs, 1)
    """)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "the test body cannot run twice: AssertionError" in result.stdout.str()


def test_a_model_that_the_body_changes_is_changed_once(suite: Any) -> None:
    """Also before it is called for the first time."""
    suite("""
    @pytest.fixture(scope="module")
    def model():
        return nn.Sequential(nn.Linear(2, 2))

    @pytest.mark.max_flops(10**6)
    def test_it(model):
        model.append(nn.Linear(2, 2))
        model(torch.ones(1, 2))

    def test_after(model):
        assert len(model) == 2
    """).assert_outcomes(passed=2)


def test_a_body_that_is_timed_has_none_of_pytest_around_it(suite: Run) -> None:
    """Neither its hooks nor what keeps it quiet, which is entered once around all repeats."""
    result = suite(
        """
import sys

def test_it():
    torch.ones(2) + 1
    sys.frames = []
    frame = sys._getframe(1)
    while frame:
        sys.frames.append(frame.f_code.co_name)
        frame = frame.f_back

test_it = pytest.mark.max_latency_ms(1000)(test_it)
""",
        conftest="""
import sys
import warnings
from pytest_nnscale import keys
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters.effort import Effort

def timer(call, *, quantile, device):
    call()
    sys.first = sys.frames[0]
    return Measurement(Metric.LATENCY, 0.1, 0.1, 0.1)

def pytest_configure(config):
    config.stash[keys.EFFORT] = Effort(timer=timer)

def pytest_sessionfinish():
    print(f"\\nit was called by {sys.first}")
""",
    )
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*it was called by timer*"])
