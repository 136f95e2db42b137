"""The worker: a session that waits for its turn inside each test, and lets no limit fail one."""

from __future__ import annotations

import json
import os
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from pytest_nnscale.ab.channel import VARIABLE, Channel, Closed
from pytest_nnscale.ab.origins import Origins

Message = dict[str, Any]
IMPORTS = "import pytest\nimport torch\nfrom torch import nn\n\nX = torch.rand(4, 8)\n\n"


class FakeCommand(threading.Thread):
    """The other end: it has all collected tests run, and each call timed twice; or it `leaves`."""

    result: Any  # of pytest

    def __init__(
        self, channel: Channel, *, order: Callable[..., Any] = sorted, leaves: bool = False
    ) -> None:
        super().__init__(daemon=True)
        self.channel, self.order, self.leaves = channel, order, leaves
        self.heard: list[Message] = []

    def run(self) -> None:
        try:
            while True:
                message = self.channel.receive() or {}
                self.heard.append(message)
                if message["is"] == "collected":
                    self.channel.send({"do": "run", "tests": list(self.order(message["tests"]))})
                elif message["is"] == "ready" and self.leaves:
                    self.channel.close()
                    break
                elif message["is"] == "ready":
                    for _ in range(2):
                        self.channel.send({"do": "time", "samples": 3, "calls": 2})
                        self.heard.append(self.channel.receive() or {})
                    self.channel.send({"do": "next"})
        except Closed:
            return

    def said(self, kind: str) -> list[Message]:
        """Return all messages of a kind."""
        return [message for message in self.heard if message["is"] == kind]


Run = Callable[..., FakeCommand]


@pytest.fixture
def work(
    _lasting_imports: None, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    """Return `work(source, *args)`: run a worker on a suite in this process, and hear what it says.

    The result of pytest is its `result`.
    """
    for name in ("CI", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    channels = []

    def run(
        source: str,
        *args: str,
        ini: str = "",
        conftest: str = "",
        settings: Message | None = None,
        **how: Any,
    ) -> FakeCommand:
        pytester.makepyfile(test_it=IMPORTS + textwrap.dedent(source))
        pytester.makeini(
            "[pytest]\nasyncio_default_fixture_loop_scope = function\n" + textwrap.dedent(ini)
        )
        if conftest:
            pytester.makeconftest(textwrap.dedent(conftest))
        down, up = os.pipe(), os.pipe()
        command = FakeCommand(Channel(up[0], down[1]), **how)
        theirs = Channel(down[0], up[1])
        channels.extend([command.channel, theirs])
        told = {"origins": "", "files": [], "scratch": str(pytester.path / "scratch")}
        told |= {"pipes": [down[0], up[1]], **(settings or {})}
        monkeypatch.setenv(VARIABLE, json.dumps(told))
        command.start()
        command.result = pytester.runpytest_inprocess("-p", "pytest_nnscale.ab.worker", *args)
        theirs.close()
        command.join(10)
        return command

    yield run
    for channel in channels:
        channel.close()


FIXTURE = """
@pytest.mark.max_latency_ms(0.000001)
def test_one(nnscale):
    nnscale(nn.Linear(8, 4), X)
"""
BODY = """
MODEL = nn.Linear(8, 4)

@pytest.mark.max_latency_ms(0.000001)
def test_one():
    MODEL(X)
"""


FIXTURE_AND_STEP = """
class Net(nn.Linear): pass

@pytest.mark.max_latency_ms(1)
@pytest.mark.max_latency_ms(2, phase="training")
def test_one(nnscale):
    nnscale(nn.Linear(8, 4), X)
    nnscale(Net(8, 4), X)
"""


def ending_of(command: FakeCommand) -> Message:
    (message,) = command.said("tested")
    return message


@pytest.mark.parametrize("source", [FIXTURE, BODY], ids=["fixture", "body"])
def test_a_call_is_timed_when_it_is_told_and_no_limit_holds(work: Run, source: str) -> None:
    """Six calls for each turn of three batches of two; what was counted comes with the end."""
    command = work(source, conftest="""
        import torch
        from torch import nn
        calls = []
        forward = nn.Linear.forward
        nn.Linear.forward = lambda self, x: calls.append(1) or forward(self, x)
        def pytest_sessionfinish():
            nn.Linear.forward = forward
            print("calls:", len(calls))
        """)  # fmt: skip
    command.result.assert_outcomes(passed=1)
    kinds = [message["is"] for message in command.heard]
    assert kinds == ["collected", "ready", "seconds", "seconds", "tested", "ended"]
    assert [len(message["seconds"]) for message in command.said("seconds")] == [3, 3]
    assert all(0 < s < 1 for message in command.said("seconds") for s in message["seconds"])
    ending = ending_of(command)
    assert (ending["test"], ending["outcome"]) == ("test_it.py::test_one", "passed")
    (call,) = ending["calls"]
    assert (call["ordinal"], call["call"], call["subject"]) == (1, int(source is FIXTURE), "Linear")
    exact = {found["metric"]: found["value"] for found in call["exact"]}
    assert exact["flops"] == 2 * 4 * 8 * 4
    assert exact["params"] == 36
    assert set(exact) == {"flops", "kernels", "memory", "params", "size"}
    assert call["exact"][0]["shares"]


def test_other_tests_do_not_run(work: Run) -> None:
    """Only those with a budget for time, by mark or by rule."""
    command = work(
        """
        def test_plain(): raise AssertionError

        @pytest.mark.max_flops(1)
        def test_exact(nnscale): raise AssertionError

        def test_ruled(nnscale): nnscale(nn.Linear(8, 4), X)
        """,
        ini="nnscale_budgets = *::test_ruled: max_latency_ms=0.00001",
    )
    command.result.assert_outcomes(passed=1, deselected=2)
    assert list(command.said("collected")[0]["tests"]) == ["test_it.py::test_ruled"]


def test_exact_budgets_of_a_timed_test_do_not_hold(work: Run) -> None:
    """Neither what is over nor what cannot be measured; energy is not measured at all."""
    command = work(
        """
        @pytest.mark.max_flops(1)
        @pytest.mark.max_params(1)
        @pytest.mark.max_energy_j(1e-9)
        @pytest.mark.max_latency_ms(0.00001)
        def test_one(nnscale):
            nnscale(nn.Linear(8, 4), X)
        """
    )
    command.result.assert_outcomes(passed=1)
    metrics = [found["metric"] for found in ending_of(command)["calls"][0]["exact"]]
    assert "energy" not in metrics


def test_an_operator_without_a_formula_leaves_the_flops_unknown(work: Run) -> None:
    """A lower bound, with its reason; the test is timed all the same."""
    command = work(
        """
        @torch.library.custom_op("mine::odd", mutates_args=())
        def odd(x: torch.Tensor) -> torch.Tensor:
            return x + 1

        @pytest.mark.max_latency_ms(1)
        def test_one(nnscale):
            nnscale(lambda x: odd(x), X)
        """
    )
    command.result.assert_outcomes(passed=1)
    found = {each["metric"]: each for each in ending_of(command)["calls"][0]["exact"]}
    assert found["flops"]["upper"] is None
    assert "mine::odd" in found["flops"]["reason"]


def test_tests_run_in_the_order_that_is_told(work: Run) -> None:
    """And those alone."""
    source = "\n".join(
        f"@pytest.mark.max_latency_ms(1)\ndef test_{n}(nnscale): nnscale(nn.Linear(8, 4), X)\n"
        for n in "abc"
    )
    command = work(source, order=lambda tests: [t for t in reversed(tests) if "b" not in t])
    assert [m["test"][-1] for m in command.said("tested")] == ["c", "a"]


def test_a_call_with_several_budgets_is_timed_once(work: Run) -> None:
    """A median and a tail are the same calls."""
    command = work(
        """
        @pytest.mark.max_latency_ms(1)
        @pytest.mark.max_latency_ms(1, device="cpu")
        @pytest.mark.max_latency_ms(2, quantile=0.9)
        def test_one(nnscale):
            nnscale(nn.Linear(8, 4), X)
            nnscale(nn.Linear(8, 4), X)
        """
    )
    assert [message["ordinal"] for message in command.said("ready")] == [1, 2]
    assert [call["call"] for call in ending_of(command)["calls"]] == [1, 2]


def test_phases_are_timed_apart(work: Run) -> None:
    """Each with what was counted in it: a training step does three times the work."""
    command = work(
        """
        @pytest.mark.max_latency_ms(1)
        @pytest.mark.max_latency_ms(2, phase="training")
        def test_one(nnscale):
            nnscale(nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 4)), X)
        """
    )
    calls = ending_of(command)["calls"]
    assert [call["phase"] for call in calls] == ["inference", "training"]
    flops = [call["exact"][0]["value"] for call in calls]
    assert flops[1] > 2 * flops[0]


def test_a_phase_that_has_no_budget_for_time_is_not_timed(work: Run) -> None:
    """One for its FLOPs is none."""
    command = work(
        """
        @pytest.mark.max_latency_ms(1)
        @pytest.mark.max_flops(1, phase="training")
        def test_one(nnscale):
            nnscale(nn.Linear(8, 4), X)
        """
    )
    assert [call["phase"] for call in ending_of(command)["calls"]] == ["inference"]


@pytest.mark.parametrize(
    ("source", "outcome", "why"),
    [
        (
            "def test_one(nnscale): nnscale(nn.Linear(8, 4), X); assert 3 == 4",
            "failed",
            "assert 3 == 4",
        ),
        ("def test_one(nnscale): raise KeyError('it')", "failed", "KeyError: 'it'"),
        ("def test_one(nowhere): pass", "failed", "fixture 'nowhere' not found"),
        ("def test_one(nnscale): pytest.skip('no weights')", "skipped", "Skipped: no weights"),
    ],
)
def test_how_a_test_ends_is_told(work: Run, source: str, outcome: str, why: str) -> None:
    """With the line that says why; its own asserts hold."""
    command = work(f"@pytest.mark.max_latency_ms(1)\n{source}\n")
    ending = ending_of(command)
    assert ending["outcome"] == outcome
    assert why in ending["why"] + ending["text"]


def test_what_is_not_timed_says_why(work: Run) -> None:
    """A body that cannot run twice is none that takes turns."""
    command = work(
        """
        import itertools
        RUNS = itertools.count()

        @pytest.mark.max_latency_ms(1)
        def test_one():
            nn.Linear(8, 4)(X)
            assert next(RUNS) == 0
        """
    )
    command.result.assert_outcomes(passed=1)
    (lacking,) = ending_of(command)["lacking"]
    assert "cannot run twice" in lacking["reason"]
    assert lacking["missing"] == ""


def test_what_this_machine_lacks_is_named(work: Run) -> None:
    """A budget for a GPU, where none is."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    command = work(
        """
        @pytest.mark.max_latency_ms(1, device="cuda")
        def test_one(nnscale):
            nnscale(nn.Linear(8, 4), X)
        """
    )
    assert ending_of(command)["lacking"][0]["missing"] == "cuda"
    assert not command.said("ready")


def test_a_call_that_raises_when_it_is_repeated_is_told(work: Run) -> None:
    """And the test goes on."""
    command = work(
        """
        class Once(nn.Module):
            runs = 0
            def forward(self, x):
                self.runs += 1
                if self.runs > 3:
                    raise ValueError("enough")
                return x + 1

        @pytest.mark.max_latency_ms(1)
        def test_one(nnscale):
            nnscale(Once(), X)
        """
    )
    assert command.said("seconds")[-1]["reason"] == (
        "the call cannot be repeated: ValueError: enough"
    )
    assert ending_of(command)["outcome"] == "passed"


def test_the_model_is_as_it_was_after_its_turns(work: Run) -> None:
    """The guard of a measurement stands around all turns together."""
    command = work(
        """
        @pytest.mark.max_latency_ms(1)
        def test_one(nnscale):
            norm = nn.BatchNorm1d(8)
            nnscale(norm, X)
            assert norm.num_batches_tracked == 1
        """
    )
    command.result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    "args",
    [("-n2",), ("--reruns=2",), ("--maxfail=1",), ("--nnscale-inconclusive=fail",), ("--lf",)],
    ids=lambda args: args[0],
)
def test_options_that_would_run_tests_elsewhere_or_again_do_not(
    work: Run, args: Sequence[str]
) -> None:
    """They may stand in the project's addopts."""
    command = work(FIXTURE + "    assert False\n" + FIXTURE.replace("test_one", "test_two"), *args)
    assert [message["outcome"] for message in command.said("tested")] == ["failed", "passed"]
    assert len(command.said("ready")) == 2


def test_a_mark_that_would_run_a_test_again_does_not(work: Run) -> None:
    """Its second run would be taken for another call."""
    pytest.importorskip("pytest_rerunfailures")
    command = work(f"@pytest.mark.flaky(reruns=2){FIXTURE}    assert False\n")
    assert len(command.said("ready")) == 1
    assert [message["outcome"] for message in command.said("tested")] == ["failed"]


def test_no_trace_is_left_in_the_project(work: Run, pytester: pytest.Pytester) -> None:
    """Neither what failed last, nor a report, nor what tests left in a folder of their own."""
    kept = pytester.mkdir("kept")
    (kept / "precious").write_text("from a session before")
    cache = pytester.mkdir(".pytest_cache")
    report = pytester.path / "report.xml"
    report.write_text("of a session before")
    command = work(
        FIXTURE + "    assert False\n",
        f"--junitxml={report}",
        f"--basetemp={kept}",
        "--log-file=run.log",
        conftest="""
            import pytest

            @pytest.fixture(autouse=True)
            def folder(tmp_path): (tmp_path / "made").touch()
            def pytest_sessionfinish(session):
                assert session.config.cache.get("cache/lastfailed", None) is not None
                assert session.config.pluginmanager.hasplugin("lfplugin")
            """,
    )
    assert [message["outcome"] for message in command.said("tested")] == ["failed"]
    assert report.read_text() == "of a session before"
    assert list(cache.iterdir()) == []
    assert [path.name for path in kept.iterdir()] == ["precious"]
    assert not (pytester.path / "run.log").exists()


def test_reports_of_other_plugins_are_switched_off(work: Run) -> None:
    """By the name that their option has, where they are there."""
    conftest = """
        def pytest_addoption(parser):
            parser.addoption("--report-log", dest="report_log")
            parser.addoption("--html", dest="htmlpath")
        def pytest_configure(config):
            assert config.option.report_log is None
            assert config.option.htmlpath is None
        """
    command = work(FIXTURE, "--report-log=a.json", "--html=a.html", conftest=conftest)
    command.result.assert_outcomes(passed=1)


def test_a_call_that_is_ready_says_which_it_is(work: Run) -> None:
    """The other side may make others."""
    command = work(FIXTURE_AND_STEP + BODY.replace("test_one", "test_two"))
    told = [(m["call"], m["phase"], m["subject"], m["device"]) for m in command.said("ready")]
    assert told == [
        (1, "inference", "Linear", "cpu"),
        (1, "training", "Linear", "cpu"),
        (2, "inference", "Net", "cpu"),
        (2, "training", "Net", "cpu"),
        (0, "inference", "Linear", "cpu"),
    ]
    made = [
        (c["call"], c["phase"], c["subject"]) for m in command.said("tested") for c in m["calls"]
    ]
    assert made == [each[:3] for each in told]


def test_the_body_of_a_test_that_has_the_fixture_is_no_call_of_it(work: Run) -> None:
    """It may ask for the fixture and never call it."""
    command = work(BODY.replace("test_one()", "test_one(nnscale)"))
    assert [message["call"] for message in command.said("ready")] == [0]
    assert [call["call"] for call in ending_of(command)["calls"]] == [0]


@pytest.mark.parametrize("flush", ["yes", "no"])
def test_the_cache_of_a_gpu_is_emptied_where_the_project_says_so(
    work: Run, monkeypatch: pytest.MonkeyPatch, flush: str
) -> None:
    """As in the project's own sessions."""
    from pytest_nnscale.timing import devices

    asked, real = [], devices.clock_for

    def clock_for(device: str = "cpu", *, flush: bool = False) -> object:
        asked.append(flush)
        return real(device)

    monkeypatch.setattr(devices, "clock_for", clock_for)
    work(FIXTURE, ini=f"nnscale_flush_l2 = {flush}")
    assert asked == [flush == "yes"]


def test_a_gpu_that_throttles_meanwhile_is_told_with_the_call(
    work: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at after each turn, while it is as warm as that made it."""
    from pytest_nnscale.timing import conditions

    class Warm(conditions.Watch):
        looks = 0

        def look(self) -> None:
            self.looks += 1
            self.disturbed = "the GPU throttled" if self.looks == 2 else self.disturbed

    @contextmanager
    def watched(_device: str) -> Iterator[conditions.Watch]:
        yield Warm()

    monkeypatch.setattr(conditions, "conditions", watched)
    command = work(FIXTURE)
    assert ending_of(command)["calls"][0]["disturbed"] == "the GPU throttled"


def test_what_a_benchmark_times_takes_turns(work: Run) -> None:
    """The call that was handed to it, not its rounds, which do not run."""
    pytest.importorskip("pytest_benchmark")
    command = work(
        """
        @pytest.mark.max_latency_ms(1)
        def test_one(benchmark):
            benchmark(nn.Linear(8, 4), X)
        """
    )
    command.result.assert_outcomes(passed=1)
    assert len(command.said("ready")) == 1
    assert ending_of(command)["calls"][0]["exact"][0]["value"] == 2 * 4 * 8 * 4


def test_only_the_files_that_are_named_are_collected(work: Run, pytester: pytest.Pytester) -> None:
    """In later restarts, when it is known where the tests are."""
    pytester.makepyfile(test_other="raise RuntimeError('collected')\n")
    command = work(FIXTURE, settings={"files": [str(pytester.path / "test_it.py")]})
    command.result.assert_outcomes(passed=1)


def test_a_stranger_is_told_with_what_was_collected(work: Run, pytester: pytest.Pytester) -> None:
    """A module of another tree, by its file; and once more at the end."""
    other = pytester.mkdir("other")
    (other / "model_elsewhere.py").write_text("")
    source = f"import sys; sys.path.insert(0, {str(other)!r})\nimport model_elsewhere\n" + FIXTURE
    origins = pytester.path / "origins.json"
    Origins(own=[pytester.path / "x"], others=[other]).write(origins)
    command = work(source, settings={"origins": str(origins)})
    stranger = ["model_elsewhere", str(other / "model_elsewhere.py")]
    assert command.said("collected")[0]["stranger"] == stranger
    assert command.said("ended")[0]["stranger"] == stranger


def test_tests_that_cannot_be_collected_are_not_reported_as_none(work: Run) -> None:
    """Pytest says why, and the command hears of nothing but the end."""
    command = work("import nowhere_to_be_found\n")
    command.result.assert_outcomes(errors=1)
    assert [message["is"] for message in command.heard] == ["ended"]


def test_a_tracer_makes_it_unmeasured(work: Run) -> None:
    """Coverage would time itself."""
    command = work(
        """
        import sys

        @pytest.fixture
        def traced():
            sys.setprofile(lambda *_: None)
            yield
            sys.setprofile(None)

        @pytest.mark.max_latency_ms(1)
        def test_one(nnscale, traced):
            nnscale(nn.Linear(8, 4), X)
        """
    )
    (lacking,) = ending_of(command)["lacking"]
    assert "coverage or a debugger" in lacking["reason"]
    assert not command.said("ready")


def test_the_session_ends_with_the_command(work: Run) -> None:
    """Nobody listens any more: no further test runs."""
    command = work(FIXTURE + FIXTURE.replace("test_one", "test_two"), leaves=True)
    assert command.result.ret == 2
    command.result.stdout.fnmatch_lines(["*nnscale ab has ended*"])
    assert len(command.said("ready")) == 1


def test_it_warns_of_nothing(work: Run) -> None:
    """Where warnings are errors, it works all the same."""
    command = work(FIXTURE + BODY.replace("test_one", "test_two"), ini="filterwarnings = error")
    command.result.assert_outcomes(passed=2)


def test_without_settings_the_plugin_does_nothing(pytester: pytest.Pytester) -> None:
    """It may be loaded by accident."""
    pytester.makepyfile("def test_one(): pass")
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    result = pytester.runpytest_inprocess("-p", "pytest_nnscale.ab.worker")
    result.assert_outcomes(passed=1)
