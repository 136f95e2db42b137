"""Beside pytest-benchmark: its rounds are the samples, its JSON has the exact numbers."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from pytest_nnscale import benchmark_timing

pytest.importorskip("pytest_benchmark")

# The inner suites of these tests. Their rounds run for real, and take the seconds that a test says
# they take: what a machine makes of them is not what is tested here.
CONFTEST = """
    import itertools
    import pytest

    class ScriptedRunner:
        def __init__(self, seconds):
            self.seconds = itertools.cycle(seconds)

        def make(self, function, args, kwargs):
            def run(loops, timer=None):
                result = function(*args, **kwargs)
                took = next(self.seconds)
                return took * len(loops) if loops else (took, result)
            return run

    @pytest.fixture
    def takes(benchmark):
        def takes(*seconds):
            benchmark._make_runner = ScriptedRunner(seconds).make
        return takes

    def pytest_benchmark_generate_machine_info():
        return {}
"""
MODEL = """
class Counted(nn.Linear):
    calls = 0
    def forward(self, x):
        type(self).calls += 1
        return super().forward(x)

model = Counted(8, 4)
x = torch.ones(2, 8)
FLOPS = 2 * 2 * 8 * 4
"""
LONG = "--nnscale-max-time=2"
ANEW = "timed by pytest-nnscale: pytest-benchmark is disabled"


@pytest.fixture
def bench(suite: Any, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return `bench(source, *args)`: run a suite with the model and `takes`, under JUnit's eyes."""
    # pytest-benchmark looks at it: these tests may run on a worker themselves.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)

    def run(source: str, *args: str, conftest: str = "", **how: Any) -> pytest.RunResult:
        conftest = textwrap.dedent(CONFTEST) + textwrap.dedent(conftest)
        source = MODEL + textwrap.dedent(source)
        result: pytest.RunResult = suite(
            source, "--junit-xml=out.xml", *args, conftest=conftest, **how
        )
        return result

    return run


@pytest.fixture
def verdicts(pytester: pytest.Pytester) -> Any:
    """Return a function that reads the verdicts of the run before."""

    def read() -> list[Any]:
        tree = ElementTree.parse(pytester.path / "out.xml")
        found = [p for p in tree.iter("property") if p.get("name") == "nnscale.verdict"]
        return [json.loads(str(p.get("value"))) for p in found]

    return read


def extra_info(pytester: pytest.Pytester, path: str = "out.json") -> Any:
    """Return the extra_info of the only benchmark in a file of pytest-benchmark."""
    (entry,) = json.loads((pytester.path / path).read_text())["benchmarks"]
    return entry["extra_info"]


def test_its_rounds_are_the_samples_and_nothing_is_timed_twice(bench: Any, verdicts: Any) -> None:
    """At the limit and below; the model ran for the rounds, for their result, and once for us."""
    result = bench("""
    @pytest.mark.max_latency_ms(10)
    def test_at(benchmark, takes):
        takes(0.010)
        benchmark(model, x)
        assert benchmark.stats.stats.rounds == 100
        assert Counted.calls == 1 + 100 + 1 + 1, "calibration, rounds, result, count"

    @pytest.mark.max_latency_ms(9)
    def test_below(benchmark, takes):
        takes(0.010)
        benchmark(model, x)

    def test_after():
        assert Counted.calls == 2 * 103
    """)
    result.assert_outcomes(passed=2, failed=1)
    text = result.stdout.str()
    assert "max_latency_ms: Counted needs 10.0 ms, budget 9.00 ms (+1.00 ms, +11.1 %)" in text
    assert "note: 100 rounds by pytest-benchmark" in text
    assert [v["measurement"]["method"] for v in verdicts()] == ["pytest-benchmark"] * 2


def test_the_quantile_that_is_asked_for_is_judged(bench: Any) -> None:
    """A tenth of the rounds takes ten times as long."""
    result = bench("""
    SECONDS = [0.01] * 9 + [0.1]
    @pytest.mark.max_latency_ms(20)
    def test_median(benchmark, takes):
        takes(*SECONDS)
        benchmark.pedantic(model, (x,), rounds=400)
    @pytest.mark.max_latency_ms(20, quantile=0.95)
    def test_p95(benchmark, takes):
        takes(*SECONDS)
        benchmark.pedantic(model, (x,), rounds=400)
    """)
    result.assert_outcomes(passed=1, failed=1)
    assert "max_latency_ms (p95): Counted" in result.stdout.str()


def test_too_few_rounds_are_red_and_say_how_to_get_more(bench: Any) -> None:
    """Each way to use it has its own remedy, and whoever follows it has a verdict."""
    result = bench("""
    @pytest.mark.max_latency_ms(1_000)
    def test_few(benchmark, takes):
        takes(0.5)
        benchmark(model, x)
    @pytest.mark.max_latency_ms(1_000)
    def test_pedantic(benchmark):
        benchmark.pedantic(model, (x,), rounds=11)
    @pytest.mark.max_latency_ms(1_000)
    @pytest.mark.benchmark(min_rounds=30)
    def test_more(benchmark, takes):
        takes(0.5)
        benchmark(model, x)
    @pytest.mark.max_latency_ms(1_000)
    def test_pedantic_more(benchmark, takes):
        takes(0.5)
        benchmark.pedantic(model, (x,), rounds=30)
    """)
    result.assert_outcomes(passed=2, failed=2)
    text = result.stdout.str()
    assert "p50 at 99 % needs 12 rounds or more, and there were 5 of about 500 ms" in text
    assert "  @pytest.mark.benchmark(min_rounds=30), or --benchmark-min-rounds=30" in text
    assert "and there were 11 of about" in text
    assert "  benchmark.pedantic(..., rounds=30)" in text
    assert "4 budgets: 2 within, 0 over, 0 inconclusive, 2 unmeasured" in result.outlines


def test_undecided_rounds_ask_for_more_of_them(bench: Any) -> None:
    """Not for --nnscale-max-time, which is none of theirs."""
    result = bench("""
    SECONDS = [0.0095, 0.0105, 0.0098, 0.0102, 0.0100]
    @pytest.mark.max_latency_ms(10)
    def test_close(benchmark, takes):
        takes(*SECONDS)
        benchmark.pedantic(model, (x,), rounds=40)
    @pytest.mark.max_latency_ms(10)
    def test_wide(benchmark, takes):
        takes(*[10 * s for s in SECONDS], 0.0001, 0.0002, 0.0001)
        benchmark.pedantic(model, (x,), rounds=40)
    """)
    result.assert_outcomes(passed=1, failed=1, warnings=1)
    text = result.stdout.str()
    assert "inconclusive; benchmark.pedantic(..., rounds=80); --nnscale-inconclusive=fail" in text
    assert "too far apart to say on which side" in text
    assert "  benchmark.pedantic(..., rounds=80)" in result.outlines
    assert "--nnscale-max-time" not in text


def test_a_p95_of_means_is_red(bench: Any) -> None:
    """A round of many calls hides how far single ones stray."""
    result = bench("""
    @pytest.mark.max_latency_ms(1_000, quantile=0.95)
    def test_it(benchmark):
        benchmark.pedantic(model, (x,), rounds=200, iterations=3)
    """)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "a round is the mean of 3 calls, which hides the p95" in result.stdout.str()


def test_a_round_of_many_calls_is_that_of_one(bench: Any, verdicts: Any) -> None:
    """The rounds of a short call are kept in seconds per call, and not divided again."""
    bench("""
    @pytest.mark.max_latency_ms(10)
    def test_it(benchmark, takes):
        takes(0.010)
        benchmark.pedantic(model, (x,), rounds=50, iterations=4)
    """).assert_outcomes(passed=1)
    (verdict,) = verdicts()
    assert verdict["measurement"]["value"] == pytest.approx(0.010)
    assert verdict["measurement"]["notes"] == ["50 rounds of 4 calls by pytest-benchmark"]


@pytest.mark.parametrize(
    "test",
    [
        "def test_it(benchmark, takes):\n    takes(0.01)\n"
        "    @benchmark\n    def output():\n        return model(x)\n"
        "    assert output.shape == (2, 4)",
        "def test_it(benchmark, takes):\n    takes(0.01)\n    benchmark(lambda *, x: model(x), x=x)",
        "def test_it(benchmark, takes):\n    takes(0.01)\n"
        "    benchmark.pedantic(model, kwargs={'input': x}, rounds=50) if 0 else "
        "benchmark.pedantic(model, [x], {}, rounds=50)",
        "@pytest.fixture\ndef fifty(benchmark):\n"
        "    return lambda f, *a: benchmark.pedantic(f, a, rounds=50)\n"
        "def test_it(fifty, takes):\n    takes(0.01)\n    fifty(model, x)",
        "from functools import partial\n@pytest.fixture\ndef fifty(benchmark):\n"
        "    return partial(benchmark.pedantic, rounds=50)\n"
        "def test_it(fifty, takes):\n    takes(0.01)\n    fifty(model, args=(x,))",
        "def run(x):\n    return model(x)\n"
        "def test_it(benchmark, takes):\n    takes(0.01)\n"
        "    benchmark.weave(f'{__name__}.run')\n    assert run(x).shape == (2, 4)",
        "def run(x):\n    return model(x)\n"
        "def test_it(benchmark_weave, takes):\n    takes(0.01)\n"
        "    benchmark_weave(f'{__name__}.run')\n    assert run(x).shape == (2, 4)",
        "import unittest\nclass TestIt(unittest.TestCase):\n"
        "    @pytest.fixture(autouse=True)\n    def kept(self, benchmark, takes):\n"
        "        self.benchmark = benchmark\n        takes(0.01)\n"
        "    MARKS\n    def test_it(self):\n        self.benchmark(model, x)",
    ],
    ids=[
        "decorator", "keywords", "lists", "closure", "partial", "weave", "benchmark_weave",
        "unittest",
    ],
)  # fmt: skip
def test_every_way_to_benchmark_is_judged(bench: Any, verdicts: Any, test: str) -> None:
    """Also where the fixture is used through others, and where it sits in a class."""
    marks = "@pytest.mark.max_latency_ms(11)\n@pytest.mark.max_flops(FLOPS)\n"
    if "MARKS" in test:
        test = test.replace("MARKS", marks.strip().replace("\n", "\n    "))
    else:
        test = test.replace("def test_it", f"{marks}def test_it")
    # What weave needs of aspectlib, which is no part of an installation.
    aspectlib = """
    import importlib
    class Woven:
        def __init__(self, target, aspect):
            module, _, name = target.rpartition(".")
            self.where, self.name = importlib.import_module(module), name
            self.what = getattr(self.where, name)
            setattr(self.where, name, aspect(self.what))
        def rollback(self):
            setattr(self.where, self.name, self.what)
    weave = Woven
    """
    result = bench(test, files={"aspectlib.py": aspectlib, "pytest.ini": "[pytest]\n"})
    result.assert_outcomes(passed=1)
    measured = {v["budget"]["metric"]: v["measurement"] for v in verdicts()}
    assert measured["latency"]["method"] == "pytest-benchmark"
    assert measured["latency"]["value"] == pytest.approx(0.01)
    assert measured["flops"]["value"] == 128


def test_rounds_run_with_nothing_of_ours_active(bench: Any) -> None:
    """No dispatch mode, no hooks of all modules, the caller's grad mode; only the last is counted."""
    bench("""
    from torch.nn.modules import module as hooks
    from torch.utils._python_dispatch import _get_current_dispatch_mode

    seen = []
    def look(x):
        ours = bool(hooks._global_forward_pre_hooks or hooks._global_forward_hooks)
        seen.append((_get_current_dispatch_mode() is not None or ours, torch.is_grad_enabled()))
        return model(x)

    @pytest.mark.max_flops(FLOPS)
    @pytest.mark.max_latency_ms(10)
    def test_it(benchmark, takes):
        takes(0.010)
        with torch.no_grad():
            benchmark(look, x)
        assert seen == [(False, False)] * 102 + [(True, False)]
    """).assert_outcomes(passed=1)


def test_what_is_counted_is_the_benchmarked_call_alone(bench: Any) -> None:
    """The number beside a benchmark is that of what was benchmarked; the body runs once."""
    bench("""
    bodies = []
    @pytest.mark.max_flops(FLOPS)
    @pytest.mark.max_params(36)
    def test_it(benchmark):
        bodies.append(1)
        nn.Linear(1000, 1000)(torch.ones(1, 1000))
        benchmark.pedantic(model, (x,), rounds=2)
        nn.Linear(1000, 1000)(torch.ones(1, 1000))
    def test_after():
        assert bodies == [1]
    """).assert_outcomes(passed=2)


def test_a_benchmark_over_an_exact_budget_is_red(bench: Any) -> None:
    """With the layer that holds it."""
    result = bench("""
    @pytest.mark.max_flops(FLOPS - 1)
    def test_it(benchmark):
        benchmark.pedantic(nn.Sequential(model), (x,), rounds=2)
    """)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    assert "max_flops: Sequential needs 128 FLOP, budget 127 FLOP (+1 FLOP, +0.8 %)" in text
    assert "  0  128 FLOP  100.0 %  Counted" in text


@pytest.mark.parametrize("mark", ["max_latency_ms(10)", "max_params(36)"])
def test_the_exact_numbers_are_in_the_json(bench: Any, pytester: Any, mark: str) -> None:
    """Whichever mark is there; beside what the test has put there itself."""
    bench(
        f"""
    @pytest.mark.{mark}
    def test_it(benchmark, takes):
        takes(0.010)
        benchmark.extra_info["params"] = "mine, before"
        benchmark(model, x)
        assert benchmark.extra_info["nnscale"]["flops"] == FLOPS
        benchmark.extra_info["batch"] = 2
    """,
        "--benchmark-json=out.json",
    ).assert_outcomes(passed=1)
    assert extra_info(pytester) == {
        "params": "mine, before",
        "batch": 2,
        "nnscale": {
            "subject": "Counted",
            "params": 36,
            "flops": 128,
            "macs": 64,
            "size_bytes": 144,
            "memory_bytes": 144 + 64 + 32,
            "kernels": 1,
            "unmeasured": {},
            "definitions": ["params/1", "flops/1", "macs/1", "size/1", "memory/1", "kernels/1"],
        },
    }


def test_what_is_saved_has_them_as_well(bench: Any, pytester: Any) -> None:
    """--benchmark-save, and a test that took our name for its own."""
    source = """
    @pytest.mark.max_params(36)
    def test_it(benchmark):
        {}
        benchmark.pedantic(model, (x,), rounds=2)
    """
    bench(source.format("pass"), "--benchmark-save=first")
    bench(source.format("benchmark.extra_info['nnscale'] = 'mine'"), "--benchmark-save=second")
    first, second = sorted(pytester.path.glob(".benchmarks/*/*.json"))
    assert extra_info(pytester, first)["nnscale"]["flops"] == 128
    assert extra_info(pytester, second) == {"nnscale": "mine"}


def test_what_is_not_known_is_null_and_says_why(bench: Any, pytester: Any) -> None:
    """An operator without a formula makes no FLOPs of zero, nor of what else was counted."""
    result = bench(
        """
    torch.library.define("ours::op", "(Tensor x) -> Tensor")
    torch.library.impl("ours::op", "CPU", lambda x: x + 1)
    @pytest.mark.max_params(36)
    @pytest.mark.max_flops(10_000)
    def test_it(benchmark):
        benchmark.pedantic(lambda: torch.ops.ours.op(model(x)), rounds=2)
    """,
        "--benchmark-json=out.json",
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    told = extra_info(pytester)["nnscale"]
    assert (told["flops"], told["macs"], told["params"], told["kernels"]) == (None, None, 36, 2)
    assert set(told["unmeasured"]) == {"flops", "macs"}
    assert "no formula for ours::op" in told["unmeasured"]["flops"]


def test_a_benchmark_without_a_mark_is_left_alone(bench: Any, pytester: Any) -> None:
    """No number, no call more, no method in the place of another."""
    bench(
        """
    def test_it(benchmark, takes):
        takes(0.010)
        assert "_raw" not in vars(benchmark)
        benchmark(model, x)
        assert Counted.calls == 102
        assert benchmark.extra_info == {}
    @pytest.mark.max_params(6)
    def test_other(nnscale):
        nnscale(nn.Linear(2, 2), torch.ones(1, 2))
    """,
        "--benchmark-json=out.json",
    ).assert_outcomes(passed=2)
    assert extra_info(pytester) == {}


@pytest.mark.parametrize("args", [("--benchmark-disable",), ("-n2",)], ids=["disabled", "xdist"])
def test_where_it_is_disabled_the_call_is_timed_all_the_same(
    bench: Any, verdicts: Any, args: tuple[str, ...]
) -> None:
    """It runs once then, without a number: the budget is not off."""
    result = bench(
        """
    @pytest.mark.max_latency_ms(100_000)
    @pytest.mark.max_flops(FLOPS)
    def test_within(benchmark):
        benchmark(model, x)
    @pytest.mark.max_latency_ms(1)
    def test_over(benchmark):
        import time
        benchmark(lambda: time.sleep(0.02) or model(x))
    """,
        *args,
        LONG,
    )
    result.assert_outcomes(passed=1, failed=1)
    assert "max_latency_ms: Counted " in result.stdout.str()
    timed = [v["measurement"] for v in verdicts() if v["budget"]["metric"] == "latency"]
    assert len(timed) == 2
    for measurement in timed:
        assert measurement["method"] == "wall clock"
        assert measurement["notes"][-1].startswith(ANEW)


def test_a_setup_is_not_timed_where_it_is_disabled(bench: Any, verdicts: Any) -> None:
    """Rounds are taken with all that they need, and what is timed is the call."""
    bench(
        """
    import time
    made = []
    def setup():
        time.sleep(0.02)
        made.append(1)
        return (torch.ones(2, 8),), {}
    def teardown(x):
        made.pop()
        time.sleep(0.02)
    @pytest.mark.max_latency_ms(100_000)
    def test_it(benchmark):
        benchmark.pedantic(model, setup=setup, teardown=teardown, rounds=3)
        assert len(made) == 1, "pytest-benchmark tears nothing down where it is disabled"
    """,
        "--benchmark-disable",
        LONG,
    ).assert_outcomes(passed=1)
    (verdict,) = verdicts()
    assert verdict["measurement"]["lower"] < 0.02
    assert verdict["measurement"]["notes"][-1].startswith(ANEW)


def test_energy_of_a_call_with_a_setup_is_red(bench: Any) -> None:
    """Its counters would see the setup as well."""
    result = bench("""
    @pytest.mark.max_energy_j(1_000)
    def test_it(benchmark):
        benchmark.pedantic(model, setup=lambda: ((x,), {}), rounds=3)
    """)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "setup and teardown of its rounds would be measured" in result.stdout.str()


def test_a_timer_that_may_be_no_wall_clock_is_not_believed(bench: Any, verdicts: Any) -> None:
    """process_time adds up all threads, and counts no waiting."""
    bench(
        """
    @pytest.mark.max_latency_ms(100_000)
    def test_it(benchmark):
        benchmark.pedantic(model, (x,), rounds=30)
    """,
        "--benchmark-timer=time.process_time",
        LONG,
    ).assert_outcomes(passed=1)
    (verdict,) = verdicts()
    assert verdict["measurement"]["method"] == "wall clock"
    assert verdict["measurement"]["notes"][-1].startswith(
        "timed by pytest-nnscale: --benchmark-timer"
    )


def test_rounds_that_do_not_wait_for_a_device_are_not_believed() -> None:
    """On a GPU they end when the work is asked for, not when it is done."""
    import time

    stats = SimpleNamespace(options={"timer": time.perf_counter})
    used = SimpleNamespace(stats=stats)
    assert benchmark_timing._why_anew(used, "cpu") == ""
    assert "does not wait for cuda" in benchmark_timing._why_anew(used, "cuda:1")


def test_rounds_that_stop_when_they_are_precise_are_judged(bench: Any, verdicts: Any) -> None:
    """--benchmark-precision looks after every round; the interval may be looked at any time."""
    bench(
        """
    @pytest.mark.max_latency_ms(12)
    def test_it(benchmark, takes):
        takes(0.0098, 0.0102, 0.0101, 0.0099)
        benchmark(model, x)
        assert benchmark.stats.stats.rounds == 30
    """,
        "--benchmark-precision=0.05",
        "--benchmark-min-rounds=30",
    ).assert_outcomes(passed=1)
    assert verdicts()[0]["measurement"]["method"] == "pytest-benchmark"


def test_skipped_benchmarks_are_not_run(bench: Any) -> None:
    """--benchmark-skip and --benchmark-only: what they leave out is said to be left out."""
    source = """
    @pytest.mark.max_flops(FLOPS)
    def test_benchmark(benchmark):
        benchmark.pedantic(model, (x,), rounds=2)
    @pytest.mark.max_flops(FLOPS)
    def test_plain():
        model(x)
    """
    for option in ("--benchmark-skip", "--benchmark-only"):
        result = bench(source, option)
        result.assert_outcomes(passed=1, skipped=1)
        line = "2 budgets: 1 within, 0 over, 0 inconclusive, 0 unmeasured, 1 not run"
        assert line in result.outlines


def test_a_training_step_is_one_call(bench: Any, pytester: Any) -> None:
    """All that it does counts, with the phase stated or not; it needs a backward pass then."""
    result = bench(
        """
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    def step():
        optimiser.zero_grad()
        model(x).sum().backward()
        optimiser.step()
    @pytest.mark.max_flops(2 * FLOPS)
    @pytest.mark.max_latency_ms(10)
    @pytest.mark.max_flops(2 * FLOPS, phase="training")
    @pytest.mark.max_latency_ms(10, phase="training")
    def test_step(benchmark, takes):
        takes(0.010)
        benchmark(step)
    @pytest.mark.max_latency_ms(10, phase="training")
    def test_no_step(benchmark, takes):
        takes(0.010)
        benchmark.pedantic(model, (x,), rounds=40)
    """
    )
    result.assert_outcomes(passed=1, failed=1)
    assert "phase='training', but what would be repeated runs no backward" in result.stdout.str()
    assert "5 budgets: 4 within, 0 over, 0 inconclusive, 1 unmeasured" in result.outlines


def test_the_model_is_as_the_rounds_left_it(bench: Any) -> None:
    """The run that counts is undone, and so is the setup that it needs."""
    bench("""
    norm = nn.BatchNorm1d(8)
    ready, torn = torch.zeros(1), torch.zeros(1)
    def setup():
        ready.add_(1)
        norm.weight.data.fill_(float(ready))
        return (torch.rand(4, 8),), {}
    @pytest.mark.max_params(16)
    def test_it(benchmark):
        torch.manual_seed(0)
        benchmark.pedantic(norm, setup=setup, teardown=lambda x: torn.add_(1), rounds=2)
        after = torch.rand(1)
        assert norm.num_batches_tracked == 2
        assert ready == torn == 2
        assert norm.weight.tolist() == [2.0] * 8
        torch.manual_seed(0)
        torch.rand(2, 4, 8)
        assert after == torch.rand(1)
    """).assert_outcomes(passed=1)


ONCE = """
    ran = []
    def rounds_alone():
        ran.append(1)
        if len(ran) > 30:
            pytest.fail("thirty times only")
        return model(x)
"""


def test_a_call_that_cannot_run_once_more_is_red(bench: Any, pytester: Any) -> None:
    """The test passes by itself, and what it ran stays unknown."""
    result = bench(
        textwrap.dedent(ONCE)
        + textwrap.dedent("""
    @pytest.mark.max_flops(FLOPS)
    def test_it(benchmark):
        benchmark.pedantic(rounds_alone, rounds=30)
    """),
        "--benchmark-json=out.json",
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    assert "the benchmarked call cannot run once more: Failed: thirty times only" in text
    assert "  benchmark a call that can run many times" in text
    assert extra_info(pytester)["nnscale"]["flops"] is None


@pytest.mark.parametrize(("limit_ms", "outcome"), [(20, "within"), (5, "over")])
def test_its_rounds_tell_the_time_of_a_call_that_cannot_run_once_more(
    bench: Any, verdicts: Any, limit_ms: float, outcome: str
) -> None:
    """They are all there, and nothing has to be counted for that."""
    bench(
        textwrap.dedent(ONCE)
        + textwrap.dedent(f"""
    @pytest.mark.max_latency_ms({limit_ms})
    def test_it(benchmark, takes):
        takes(0.01)
        benchmark.pedantic(rounds_alone, rounds=30)
    """),
    )
    (found,) = verdicts()
    assert found["outcome"] == outcome
    assert found["measurement"]["method"] == "pytest-benchmark"


def test_a_call_without_torch_is_red_by_its_own_mark_alone(bench: Any) -> None:
    """An inherited budget does not mean it."""
    result = bench("""
    @pytest.mark.max_flops(FLOPS)
    class TestIt:
        def test_inherits(self, benchmark):
            benchmark.pedantic(sum, ([1, 2],), rounds=2)
        @pytest.mark.max_kernels(5)
        def test_own(self, benchmark):
            benchmark.pedantic(sum, ([1, 2],), rounds=2)
        def test_model(self, benchmark):
            benchmark.pedantic(model, (x,), rounds=2)
    """)
    result.assert_outcomes(passed=2, failed=1)
    assert "the benchmarked call ran no tensor operator" in result.stdout.str()
    assert "2 budgets: 1 within, 0 over, 0 inconclusive, 1 unmeasured" in result.outlines


def test_an_unused_benchmark_leaves_the_body_to_be_judged(bench: Any) -> None:
    """As without the fixture."""
    result = bench("""
    @pytest.mark.max_flops(FLOPS - 1)
    def test_it(benchmark):
        model(x)
    """)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "max_flops: Counted needs 128 FLOP, budget 127 FLOP" in result.stdout.str()


@pytest.mark.parametrize(
    "test",
    [
        "@pytest.mark.max_flops(FLOPS)\ndef test_it(request):\n"
        "    request.getfixturevalue('benchmark').pedantic(model, (x,), rounds=2)",
        "def test_it(benchmark, request):\n"
        "    request.node.add_marker(pytest.mark.max_flops(FLOPS))\n"
        "    benchmark.pedantic(model, (x,), rounds=2)",
        "from pytest_benchmark.fixture import BenchmarkFixture\n"
        "@pytest.fixture\ndef changed(monkeypatch):\n"
        "    monkeypatch.delattr(BenchmarkFixture, '_raw')\n"
        "@pytest.mark.max_flops(FLOPS)\ndef test_it(benchmark, changed):\n"
        "    benchmark.pedantic(model, (x,), rounds=2)",
    ],
    ids=["asked for late", "marked late", "another pytest-benchmark"],
)
def test_a_benchmark_that_was_not_seen_is_red(bench: Any, pytester: Any, test: str) -> None:
    """It cannot be had a second time, and its own result is not harmed by trying."""
    result = bench(test, "--benchmark-json=out.json")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    assert "what it benchmarks was not seen" in text
    assert "write the mark on the test, and take benchmark as one of its arguments" in text
    assert extra_info(pytester) == {}


@pytest.mark.parametrize("when", ["by a fixture", "in the body", "after the benchmark"])
def test_late_marks_beside_another_are_judged_or_red(bench: Any, when: str) -> None:
    """What is on the test when the benchmark runs is judged by it; later is too late."""
    add = "request.node.add_marker(pytest.mark.max_flops(FLOPS - 1))"
    places = {"by a fixture": "FIXTURE", "in the body": "BEFORE", "after the benchmark": "AFTER"}
    source = """
    @pytest.fixture
    def marked(request):
        FIXTURE
    @pytest.mark.max_params(36)
    def test_it(benchmark, marked, request):
        BEFORE
        benchmark.pedantic(model, (x,), rounds=2)
        AFTER
    """.replace(places[when], add)
    for place in places.values():
        source = source.replace(place, "pass")
    result = bench(source)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    late = when == "after the benchmark"
    sentence = "the test was marked after its benchmark had run" if late else "needs 128 FLOP"
    assert sentence in result.stdout.str()
    outcome = "0 over, 0 inconclusive, 1 unmeasured" if late else "1 over, 0 inconclusive"
    assert f"2 budgets: 1 within, {outcome}" in result.stdout.str()


def test_beside_the_nnscale_fixture_the_benchmark_has_the_latency(
    bench: Any, verdicts: Any
) -> None:
    """The calls through nnscale have the rest; nothing is timed by both."""
    bench("""
    @pytest.mark.max_flops(FLOPS)
    @pytest.mark.max_latency_ms(10)
    def test_it(nnscale, benchmark, takes):
        takes(0.010)
        nnscale(model, x)
        benchmark(nn.Sequential(model), x)
        assert Counted.calls == 1 + 103
    """).assert_outcomes(passed=1)
    found = [(v["budget"]["metric"], v["measurement"]["subject"]) for v in verdicts()]
    assert found == [("flops", "Counted"), ("latency", "Sequential")]


def test_of_both_fixtures_each_has_to_be_used(bench: Any) -> None:
    """The budget that was left to the other is not off."""
    result = bench("""
    @pytest.mark.max_flops(FLOPS)
    @pytest.mark.max_latency_ms(10)
    def test_no_benchmark(nnscale, benchmark):
        nnscale(model, x)
    @pytest.mark.max_flops(FLOPS)
    @pytest.mark.max_latency_ms(10)
    def test_no_nnscale(nnscale, benchmark, takes):
        takes(0.010)
        benchmark(model, x)
    """)
    result.assert_outcomes(failed=2, warnings=1)
    text = result.stdout.str()
    assert "asked for the benchmark fixture and never used it" in text
    assert "asked for the nnscale fixture and never called it" in text
    assert "4 budgets: 2 within, 0 over, 0 inconclusive, 2 unmeasured" in result.outlines


@pytest.mark.parametrize("mark", ["", "@pytest.mark.max_flops(FLOPS)"])
@pytest.mark.parametrize("call", ["nnscale, model, x", "lambda: nnscale.profile(model, (x,))"])
def test_nnscale_is_not_to_be_benchmarked(bench: Any, mark: str, call: str) -> None:
    """Every round would be counted: neither the times nor the verdicts would mean anything."""
    result = bench(f"{mark}\ndef test_it(benchmark, nnscale):\n    benchmark({call})\n")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "benchmark the model itself: benchmark(model, x)" in result.stdout.str()


QUIET = """
    from contextlib import contextmanager
    from pytest_nnscale import keys
    from pytest_nnscale.errors import CannotMeasure
    from pytest_nnscale.meters.effort import Effort

    held = []
    @contextmanager
    def quiet(device):
        held.append(device)
        yield
        held.append("end")
        {fails}

    def pytest_configure(config):
        config.stash[keys.EFFORT] = Effort(quiet=quiet)

    @pytest.fixture
    def holds():
        return held
"""


def test_rounds_hold_others_off(bench: Any) -> None:
    """As any other timing does, and once: where a latency is asked for."""
    bench(
        """
    @pytest.mark.max_latency_ms(10)
    def test_timed(benchmark, takes, holds):
        takes(0.010)
        seen = []
        benchmark(lambda: seen.append([*holds]) or model(x))
        assert seen[:-1] == [["cpu"]] * 102
        assert seen[-1] == holds == ["cpu", "end"]
    @pytest.mark.max_params(36)
    def test_counted(benchmark, holds):
        benchmark.pedantic(model, (x,), rounds=2)
        assert holds == ["cpu", "end"]
    """,
        conftest=QUIET.format(fails=""),
    ).assert_outcomes(passed=2)


def test_rounds_that_were_disturbed_are_red(bench: Any) -> None:
    """The test itself goes on, and so do its other budgets."""
    result = bench(
        """
    @pytest.mark.max_latency_ms(10)
    @pytest.mark.max_params(36)
    def test_it(benchmark, takes):
        takes(0.010)
        assert benchmark(model, x).shape == (2, 4)
    """,
        conftest=QUIET.format(fails="raise CannotMeasure('it was loud', remedy='wait')"),
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "could not be measured, budget 10.0 ms: it was loud\n  wait" in result.stdout.str()
    assert "2 budgets: 1 within, 0 over, 0 inconclusive, 1 unmeasured" in result.outlines


def test_whoever_has_another_timer_is_handed_the_call(bench: Any, verdicts: Any) -> None:
    """As two revisions that take turns have: rounds that ran in a row are not what they mean."""
    conftest = """
    from pytest_nnscale import keys
    from pytest_nnscale.measurement import Measurement, Metric
    from pytest_nnscale.meters.effort import Effort

    def timer(call, *, quantile, device):
        assert call().shape == (2, 4)
        return Measurement(Metric.LATENCY, 0.001, 0.001, 0.001, method="by turns")

    def pytest_configure(config):
        config.stash[keys.EFFORT] = Effort(timer=timer)
    """
    bench(
        """
    @pytest.mark.max_latency_ms(2)
    def test_it(benchmark, takes):
        takes(0.010)
        benchmark(model, x)
    """,
        conftest=conftest,
    ).assert_outcomes(passed=1)
    assert verdicts()[0]["measurement"]["method"] == "by turns"


def test_an_efficiency_is_that_of_the_rounds(
    bench: Any, verdicts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the call does at best, which is counted in a run, beside what the rounds took."""
    from pytest_nnscale.ceiling import roofline

    best_s = 0.005
    monkeypatch.setattr(roofline, "product_rate", lambda *_, **__: 128 / best_s)
    monkeypatch.setattr(roofline, "move_rate", lambda *_, **__: 1e9)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bench("""
    @pytest.mark.min_efficiency(0.5)
    @pytest.mark.max_latency_ms(10)
    def test_it(benchmark, takes):
        takes(0.010)
        benchmark(model, x)
        assert Counted.calls == 103 + 1
    """).assert_outcomes(passed=1)
    found = {v["budget"]["metric"]: v["measurement"] for v in verdicts()}
    assert found["efficiency"]["value"] == pytest.approx(0.5)
    assert found["efficiency"]["method"] == "pytest-benchmark"


def test_a_ratio_is_that_of_turns_on_the_benchmarked_inputs(bench: Any, verdicts: Any) -> None:
    """Rounds in a row, at another time, are no turns."""
    result = bench(
        """
    def slower(x):
        for _ in range(100):
            model(x)
    @pytest.mark.max_latency_ms(0.9, relative_to=slower)
    def test_it(benchmark, takes):
        takes(0.010)
        benchmark(model, x)
    """,
        LONG,
    )
    result.assert_outcomes(passed=1)
    (verdict,) = verdicts()
    assert (verdict["budget"]["metric"], verdict["outcome"]) == ("ratio", "within")


@pytest.mark.parametrize("reference", ["", "@pytest.mark.max_latency_ms(30_000)"])
def test_another_test_may_be_relative_to_a_benchmark(
    bench: Any, verdicts: Any, reference: str
) -> None:
    """It is timed by its rounds, whether it has a budget of its own or none."""
    bench(
        f"""
    @pytest.mark.max_latency_ms(0.9, relative_to="test_slow")
    def test_it(nnscale):
        nnscale(model, x)
    {reference}
    def test_slow(benchmark, takes):
        takes(20.0)
        benchmark.pedantic(model, (x,), rounds=40)
        assert Counted.calls == 41
    """,
        LONG,
    ).assert_outcomes(passed=2)


def test_a_compiled_model_is_benchmarked_as_it_is(bench: Any) -> None:
    """And counted from its eager self."""
    bench("""
    compiled = torch.compile(nn.Linear(8, 4), backend="eager")
    seen = []
    def run(x):
        seen.append(torch.compiler.is_compiling())
        return compiled(x)
    @pytest.mark.max_flops(FLOPS)
    def test_it(benchmark):
        with torch.inference_mode():
            benchmark.pedantic(run, (x,), rounds=3)
        assert len(seen) == 4
    """).assert_outcomes(passed=1)


def test_a_benchmark_fixture_of_others_is_let_be(suite: Any) -> None:
    """pytest-codspeed has one, and so may a conftest: then the body is what is judged."""
    source = """
    @pytest.mark.max_flops(2 * FLOPS)
    def test_at(benchmark):
        benchmark(model, x)
        model(x)
    @pytest.mark.max_flops(2 * FLOPS - 1)
    def test_below(benchmark):
        benchmark(model, x)
        model(x)
    """
    conftest = """
    import pytest
    @pytest.fixture
    def benchmark():
        return lambda function, *args: function(*args)
    """
    source = MODEL + textwrap.dedent(source)
    result = suite(source, "-p", "no:benchmark", conftest=conftest)
    result.assert_outcomes(passed=1, failed=1)
    assert "needs 256 FLOP, budget 255 FLOP" in result.stdout.str()


def test_it_is_not_loaded_by_the_plugin() -> None:
    """Whoever does not have it, or does not use it, does not wait for it."""
    code = """
    import sys
    import pytest_nnscale.plugin, pytest_nnscale.benchmarked
    import pytest_nnscale.benchmark_timing
    assert not [name for name in sys.modules if name.startswith("pytest_benchmark")]
    assert "torch" not in sys.modules
    """
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", textwrap.dedent(code)]
    subprocess.run(command, check=True, timeout=60, cwd=root)
