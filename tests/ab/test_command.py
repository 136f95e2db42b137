"""The command: its words, its exit codes, and what it writes where."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from pytest_nnscale.ab.command import read_threshold
from pytest_nnscale.ab.comparison import Comparison, Report, Side, Timing
from pytest_nnscale.ab.ratio import Change, Ratio
from pytest_nnscale.ab.session import Asked
from pytest_nnscale.ab.stopping import Stopped
from pytest_nnscale.budget import Phase
from pytest_nnscale.cli import app
from pytest_nnscale.errors import BadOption, CannotCompare
from pytest_nnscale.exits import Exit
from pytest_nnscale.measurement import Measurement, Metric, Share
from pytest_nnscale.noise import Floor, Noise

if TYPE_CHECKING:
    from tests.ab.conftest import Project

# Each starts workers, which load torch.
pytestmark = pytest.mark.slow

SIDE = Side("main (1234567890)", "1234567890ab", {"torch": "2.14"}, 2)
TIMING = Timing(Ratio(1.2, 1.1, 1.3), 0.010, 0.012, (0.1,) * 6)


def report(*changes: Change) -> Report:
    comparisons = tuple(
        Comparison(f"t.py::test_{n}", c, timing=TIMING) for n, c in enumerate(changes)
    )
    return Report(SIDE, replace(SIDE, name="the working tree"), 0.05, 0.99, comparisons, 6, 30.0)


class Session:
    """Stands in for a session: it remembers what was asked, and gives what it was made with."""

    def __init__(self, given: Report | BaseException) -> None:
        self.given = given
        self.asked: Asked | None = None

    def __call__(self, asked: Asked, **_how: object) -> Report:
        self.asked = asked
        if isinstance(self.given, BaseException):
            raise self.given
        return self.given


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return `run(given, *words)`: the command, with a session that gives that."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def run(given: Report | BaseException, *words: str) -> Any:
        session = Session(given)
        monkeypatch.setattr("pytest_nnscale.ab.command.compare_revisions", session)
        result = CliRunner().invoke(app, ["ab", *words])
        result.asked = session.asked
        return result

    return run


SAME = report(Change.SAME)


@pytest.mark.parametrize(
    ("words", "base", "head", "arguments"),
    [
        (["main"], "main", None, ()),
        (["main", "topic"], "main", "topic", ()),
        (["main", "--", "tests", "-k", "not slow"], "main", None, ("tests", "-k", "not slow")),
        (["main", "topic", "--", "--", "-x"], "main", "topic", ("--", "-x")),
        (["main", "--strict", "--", "--strict"], "main", None, ("--strict",)),
        (["main", "--"], "main", None, ()),
    ],
)
def test_what_follows_two_dashes_goes_to_pytest(
    run: Callable[..., Any],
    words: list[str],
    base: str,
    head: str | None,
    arguments: tuple[str, ...],
) -> None:
    """It is no HEAD, and no option of ours."""
    asked = run(SAME, *words).asked
    assert (asked.base, asked.head, asked.arguments) == (base, head, arguments)


def test_options_are_handed_on(run: Callable[..., Any]) -> None:
    """Each in the unit of its name; without, what the README says."""
    plain = run(SAME, "main").asked
    assert plain.plan == replace(plain.plan, threshold=0.05, max_time_s=60.0, least=6)
    assert (plain.confidence, plain.setup, plain.base_python, plain.head_python) == (None,) * 4
    words = "--threshold 10% --confidence 0.95 --max-time 90 --setup make --base-python a --head-python b"
    asked = run(SAME, "main", *words.split()).asked
    assert (asked.plan.threshold, asked.plan.max_time_s, asked.confidence) == (0.1, 90.0, 0.95)
    assert (asked.setup, asked.base_python, asked.head_python) == ("make", "a", "b")


@pytest.mark.parametrize(
    ("text", "threshold"), [("5%", 0.05), ("0.05", 0.05), (" 12.5 % ", 0.125), ("1%", 0.01)]
)
def test_a_threshold_is_a_percentage_or_a_share(text: str, threshold: float) -> None:
    """Both are what people write."""
    assert read_threshold(text) == pytest.approx(threshold)


@pytest.mark.parametrize("text", ["5", "0", "-1%", "100%", "five", "5%%", "", "nan", "median:5%"])
def test_another_threshold_is_refused(run: Callable[..., Any], text: str) -> None:
    """A bare 5 may mean five per cent or five times."""
    result = run(SAME, "main", f"--threshold={text}")
    assert result.exit_code == Exit.ERROR
    assert "is not between 0 and 100 %, such as 5% or 0.05" in result.stderr


@pytest.mark.parametrize(
    ("changes", "words", "code"),
    [
        ([Change.SAME, Change.FASTER, Change.SKIPPED], [], 0),
        ([Change.SAME, Change.ONLY_IN_BASE, Change.ONLY_IN_HEAD], [], 0),
        ([Change.SAME, Change.SLOWER], [], 1),
        ([Change.SLOWER, Change.UNMEASURED, Change.INCONCLUSIVE], ["--strict"], 1),
        ([Change.SAME, Change.UNMEASURED], [], 2),
        ([Change.UNMEASURED], [], 5),
        ([Change.INCONCLUSIVE, Change.UNMEASURED], ["--strict"], 2),
        ([Change.SAME, Change.INCONCLUSIVE], [], 0),
        ([Change.SAME, Change.INCONCLUSIVE], ["--strict"], 3),
        ([Change.SAME], ["--strict"], 0),
        ([], [], 5),
        ([Change.SKIPPED, Change.ONLY_IN_BASE], [], 5),
        ([Change.ONLY_IN_HEAD], ["--strict"], 5),
    ],
)
def test_exit_codes(
    run: Callable[..., Any], changes: list[Change], words: list[str], code: int
) -> None:
    """Slower before unmeasured, which is no pass; nothing at all; then inconclusive if strict."""
    assert run(report(*changes), "main", *words).exit_code == code


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            [],
            "no test of either side has a budget for latency; mark one with @pytest.mark.max_latency_ms",
        ),
        (
            [Change.ONLY_IN_HEAD],
            "nnscale ab BASE -- --nnscale-budgets 'tests/*: max_latency_ms=1000'",
        ),
        ([Change.SKIPPED], "no test can be timed on both sides"),
    ],
)
def test_nothing_measured_says_what_to_do(
    run: Callable[..., Any], changes: list[Change], told: str
) -> None:
    """On stderr, below the table."""
    assert told in run(report(*changes), "main").stderr


def test_the_table_goes_to_stdout(run: Callable[..., Any]) -> None:
    """And nothing to stderr."""
    result = run(report(Change.SLOWER), "main")
    assert result.stderr == ""
    assert result.stdout.splitlines()[0] == "base: main (1234567890), head: the working tree"
    assert "slower  1.200 (1.100 to 1.300)  10.0 ms  12.0 ms" in result.stdout


def test_a_test_that_fails_shows_its_story(run: Callable[..., Any]) -> None:
    """On stderr, with its id."""
    failed = Comparison("t.py::test_it", Change.UNMEASURED, reason="it fails", output="Traceback")
    result = run(replace(SAME, comparisons=(failed,)), "main")
    assert result.stderr.startswith("\nt.py::test_it\nTraceback\n")


@pytest.mark.parametrize("option", ["--json", "--markdown"])
def test_what_goes_to_stdout_is_alone_there(run: Callable[..., Any], option: str) -> None:
    """The table is on stderr then."""
    result = run(report(Change.SLOWER), "main", option, "-")
    assert result.exit_code == 1
    assert "slower  1.200" in result.stderr
    if option == "--json":
        assert json.loads(result.stdout)["comparisons"][0]["change"] == "slower"
    else:
        assert "| **slower** | 1.200 (1.100 to 1.300) |" in result.stdout


def test_both_are_written_to_files(run: Callable[..., Any], tmp_path: Path) -> None:
    """Whole, and nothing beside them; the table stays on stdout."""
    result = run(SAME, "main", "--json", "out.json", "--markdown", "out.md")
    assert result.exit_code == 0
    assert json.loads((tmp_path / "out.json").read_text())["comparisons"][0]["change"] == "same"
    assert "| same |" in (tmp_path / "out.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.md"]
    assert (tmp_path / "out.json").stat().st_mode & 0o044 == 0o044 & ~_umask()
    assert "same" in result.stdout


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--json", "nowhere/out.json"], "--json: 'nowhere/out.json' cannot be written"),
        (["--markdown", "."], "--markdown: '.' cannot be written"),
        (["--json", "-", "--markdown", "-"], "--json and --markdown cannot both go to stdout"),
    ],
)
def test_what_cannot_be_written_is_refused_beforehand(
    run: Callable[..., Any], words: list[str], message: str
) -> None:
    """Not after an hour."""
    result = run(SAME, "main", *words)
    assert (result.exit_code, result.asked) == (2, None)
    assert message in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (BadOption("'x' is no commit"), 2, "nnscale: 'x' is no commit\n"),
        (CannotCompare("base: no", output="why\n"), 2, "why\nnnscale: base: no\n"),
        (OSError(28, "No space left on device"), 2, "nnscale: it did not work: OSError: [Errno 28] No space left on device\n"),
        (Stopped(signal.SIGINT), 130, "nnscale: stopped; its worktrees and processes are gone\n"),
        (Stopped(signal.SIGTERM), 143, "nnscale: stopped; its worktrees and processes are gone\n"),
    ],
)  # fmt: skip
def test_what_ends_it_is_told_in_a_sentence(
    run: Callable[..., Any], error: BaseException, code: int, told: str
) -> None:
    """Below what the process printed that could not go on."""
    result = run(error, "main")
    assert (result.exit_code, result.stderr, result.stdout) == (code, told, "")


def test_what_nobody_has_foreseen_is_no_regression(run: Callable[..., Any]) -> None:
    """Exit code 1 would tell git bisect that head is slower: 2, a sentence, and where it was."""
    result = run(KeyError("a bug"), "main")
    assert result.exit_code == 2
    assert result.stderr.startswith("Traceback (most recent call last)")
    assert result.stderr.splitlines()[-1] == "nnscale: it did not work: KeyError: 'a bug'"


@pytest.mark.parametrize("option", ["--max-time", "--max-wait"])
def test_a_time_without_end_is_refused(run: Callable[..., Any], option: str) -> None:
    """It is no number of seconds, and nothing has been started."""
    result = run(SAME, "main", f"{option}=inf")
    assert (result.exit_code, result.asked) == (2, None)
    assert result.stderr == f"nnscale: {option}: inf is no number of seconds, such as 60\n"


def test_a_file_that_cannot_be_written_after_all_is_an_error(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full by then; the table has been printed."""

    def full(*_args: object, **_how: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pytest_nnscale.ab.output.tempfile.mkstemp", full)
    result = run(SAME, "main", "--json", "out.json")
    assert result.exit_code == 2
    assert "1 same" in result.stdout
    assert result.stderr == (
        "nnscale: --json: 'out.json' cannot be written: [Errno 28] No space left on device\n"
    )


def test_how_long_to_wait_for_quiet_is_an_option(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In seconds, as in a session."""
    waits: list[float] = []
    monkeypatch.setattr("pytest_nnscale.timing.quiet.Quiet", waits.append)
    run(SAME, "main")
    run(SAME, "main", "--max-wait=5")
    assert waits == [600.0, 5.0]


@pytest.mark.parametrize(("phase", "warned"), [("inference", True), ("training", False)])
def test_a_threshold_below_the_noise_says_which_is_not(
    run: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    phase: Phase,
    warned: bool,
) -> None:
    """For the test where it stands in this tree, its phase, and the threads that head ran with."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    test = f"{(tmp_path / 'tests' / 't.py').resolve()}::test_it"
    Noise(threads=7).remember(test, 0, "inference", Floor(0.0712, 0.3, 0.3))
    each = Comparison(
        "tests/t.py::test_it", Change.SAME, 0, phase, timing=TIMING, file="tests/t.py"
    )
    given = replace(SAME, comparisons=(each,), head=replace(SIDE, threads=7))
    told = run(given, "main").stderr
    assert told == warned * (
        "warning: tests/t.py::test_it: the threshold is 5 %, and on this machine identical "
        "code is up to 7.1 % apart (nnscale calibrate); the smallest that it can tell is "
        "--threshold=7.2%\n"
    )


def test_everything_is_in_the_json(run: Callable[..., Any]) -> None:
    """Also the seconds of each restart, and what was printed where it ended badly."""
    timing = replace(TIMING, seconds=((0.01, 0.012),) * 6)
    base, head = (
        Measurement.exact(Metric.FLOPS, flops, shares=(Share("layer3", "Linear", flops, flops),))
        for flops in (8, 10)
    )
    each = Comparison(
        "t.py::test_it",
        Change.SLOWER,
        timing=timing,
        base=(base,),
        head=(head,),
        output="Traceback",
    )
    result = run(replace(SAME, comparisons=(each,)), "main", "--json=-")
    (found,) = json.loads(result.stdout)["comparisons"]
    assert found["seconds"] == [[0.01, 0.012]] * 6
    assert (found["base_s"], found["head_s"]) == (0.01, 0.012)
    assert found["output"] == "Traceback"
    (cause,) = found["causes"]
    assert cause == {
        "metric": "flops",
        "base": 8,
        "head": 10,
        "modules": [{"path": "layer3", "base": 8, "head": 10}],
    }


def test_the_help_documents_every_exit_code(run: Callable[..., Any]) -> None:
    """The same as every command's."""
    told = " ".join(run(SAME, "--help").stdout.replace("│", " ").split())
    assert "[HEAD] [-- PYTEST ARGS]" in told
    assert (
        "Exits with 0 where nothing is slower, 1 where something is, 2 where something did not work or "
        "a part was not measured, 3 where something is inconclusive and --strict is given, 5 where "
        "nothing was measured." in told
    )
    assert [int(code) for code in Exit] == [0, 1, 2, 3, 5]


# Below: the command itself, in a process of its own.

SLEEPS = """
import os, time
import pytest

with open("{pids}", "a") as pids:
    pids.write(f"{{os.getpid()}}\\n")
{at_import}

@pytest.mark.max_latency_ms(1)
def test_it(nnscale):
    import torch
    open("{timing}", "w").close()
    nnscale(lambda x: (time.sleep(0.05), x + 1)[1], torch.rand(2))
"""


def start(project: Project, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pytest_nnscale", "ab", *words],
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(what: Callable[[], bool], *, seconds: float = 60.0) -> None:
    until_s = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until_s, "it took too long"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["collecting", "timing"])
def test_nothing_is_left_after_a_signal(
    project: Project, tmp_path: Path, number: signal.Signals, when: str
) -> None:
    """To the process group, as Ctrl-C does it; and once more while it clears up."""
    pids, timing = tmp_path / "pids", tmp_path / "timing"
    at_import = "time.sleep(60)" if when == "collecting" else ""
    project.commit(
        {
            "test_it.py": SLEEPS.format(pids=pids, timing=timing, at_import=at_import),
            "pytest.ini": "[pytest]\nasyncio_default_fixture_loop_scope = function\n",
        }
    )
    command = start(project, "main")
    try:
        wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        if when == "timing":
            wait_for(timing.exists)
        assert len(project.worktrees) == 2  # one, in its folder and in its list
        os.killpg(command.pid, number)
        time.sleep(0.002)
        os.killpg(command.pid, number)
        _, told = command.communicate(timeout=60)
    finally:
        command.kill()
        command.communicate()
    assert command.returncode == 128 + number
    assert told.splitlines()[-1] == "nnscale: stopped; its worktrees and processes are gone"
    assert "Traceback" not in told
    assert all(is_gone(int(pid)) for pid in pids.read_text().split())
    assert project.worktrees == []
    assert list(tmp_path.glob("nnscale-ab-*")) == []


def test_workers_do_not_outlive_a_command_that_was_killed(project: Project, tmp_path: Path) -> None:
    """It could not clear up; its workers notice that nobody tells them anything any more."""
    pids, timing = tmp_path / "pids", tmp_path / "timing"
    project.commit(
        {
            "test_it.py": SLEEPS.format(pids=pids, timing=timing, at_import=""),
            "pytest.ini": "[pytest]\nasyncio_default_fixture_loop_scope = function\n",
        }
    )
    command = start(project, "main")
    wait_for(timing.exists)
    command.kill()
    command.communicate()
    workers = [int(pid) for pid in pids.read_text().split()]
    wait_for(lambda: all(map(is_gone, workers)))


NET = """
import time
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(8, 8) for _ in range({depth})])
    def forward(self, x):
        time.sleep({depth} * 0.002)
        return self.layers(x)
"""
TEST = """
import pytest
import torch
from net import Net

@pytest.mark.max_latency_ms(1)
def test_net(nnscale):
    nnscale(Net(), torch.rand(2, 8))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "code", "change"), [(4, 1, "slower"), (2, 0, "same"), (1, 0, "faster")]
)
def test_the_whole_command(project: Project, depth: int, code: int, change: str) -> None:
    """Six restarts and more, from two revisions to an exit code."""
    ini = "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
    project.commit({"net.py": NET.format(depth=2), "test_net.py": TEST, "pytest.ini": ini})
    project.commit({"net.py": NET.format(depth=depth)})
    command = start(project, "HEAD~1", "HEAD", "--json", "-")
    told, table = command.communicate(timeout=300)
    assert command.returncode == code, table
    (comparison,) = json.loads(told)["comparisons"]
    assert comparison["change"] == change
    assert len(comparison["log_ratios"]) >= 6
    if change == "slower":
        assert "because FLOPs rose 100.0 %" in table
    assert project.worktrees == []
