"""Sessions with sampled budgets: tests and measurements take turns, on the whole machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_nnscale.timing.ancestry import VARIABLE
from pytest_nnscale.timing.board import Board
from pytest_nnscale.timing.hold import ALONE
from pytest_nnscale.timing.quiet import Quiet

slow = pytest.mark.slow  # several processes, each of which loads torch

MODEL = "\nmodel = nn.Linear(2, 2)\nx = torch.ones(1, 2)\n"
SAMPLED = MODEL + "\n@pytest.mark.max_latency_ms(10000)\ndef test_it(): model(x)\n"
WAITED = "waited 0.3 s for a quiet machine, and still there: another session's test (process "


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let sessions meet in a place of their own, and return where they do."""
    place = tmp_path / "machine"
    # Messages name the worker that these tests may themselves run on.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", str(place))
    monkeypatch.delenv(VARIABLE, raising=False)
    return Board.of_user().folder


HOLDS = """
import sys
from pathlib import Path
from pytest_nnscale.timing.quiet import Quiet

with Quiet(folder=Path(sys.argv[1])).testing("another session's test"):
    print("in", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def busy(machine: Path) -> Iterator[int]:
    """Another session of this user runs a test, in the process with this id."""
    words = [sys.executable, "-c", HOLDS, str(machine)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        yield other.pid
        other.kill()


@pytest.mark.parametrize(
    ("workers", "source"),
    [
        ((), "flag"),
        ((), "ini"),
        pytest.param(("-n2",), "flag", marks=slow),
        pytest.param(("-n2",), "ini", marks=slow),
    ],
    ids=["flag", "ini", "flag, two workers", "ini, two workers"],
)
def test_a_budget_that_waited_too_long_is_red(
    suite: Any, busy: int, workers: Any, source: str
) -> None:
    """Sessions on one machine take turns; the message names the test that did not end."""
    flags, ini = ["--nnscale-max-wait=0.3"], ""
    if source == "ini":
        flags, ini = [], "nnscale_max_wait = 0.3"
    result = suite(SAMPLED, *flags, *workers, ini=ini)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert f"{WAITED}{busy})" in result.stdout.str()
    assert "let it end first, or wait longer: --nnscale-max-wait" in result.stdout.str()
    assert "1 budget: 0 within, 0 over, 0 inconclusive, 1 unmeasured" in result.outlines


@pytest.mark.usefixtures("busy")
def test_tests_wait_for_no_test(suite: Any) -> None:
    """Only measurements hold anybody off; one that cannot be made costs the others nothing."""
    source = SAMPLED + f"\ndef test_plain(): assert __import__('os').environ[{VARIABLE!r}]\n"
    result = suite(source, "--nnscale-max-wait=0.3")
    result.assert_outcomes(passed=1, failed=1)
    assert "went on" not in result.stdout.str()


@pytest.mark.parametrize("where", ["the body", "a fixture"])
@pytest.mark.usefixtures("busy")
def test_a_mark_that_arrives_late_waits_too(suite: Any, where: str) -> None:
    """No test of its session holds, but what is measured needs the machine."""
    add = "request.node.add_marker(pytest.mark.max_latency_ms(10000))"
    source = f"def test_it(request):\n    {add}\n    model(x)\n"
    if where == "a fixture":
        source = (
            f"@pytest.fixture\ndef marked(request): {add}\n"
            "def test_it(marked, nnscale): nnscale(model, x)\n"
        )
    result = suite(MODEL + source, "--nnscale-max-wait=0.3")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert WAITED in result.stdout.str()


CALLS = """
import time

def told(what, begun_s):
    with open("told.txt", "a") as out:
        out.write(f"{what} {begun_s} {time.monotonic()}\\n")

class Slow(nn.Module):
    def forward(self, x):
        begun_s = time.monotonic()
        time.sleep(0.01)
        told("call", begun_s)
        return x + 1

@pytest.mark.max_latency_ms(500)
def test_measured(nnscale):
    nnscale(Slow(), torch.ones(1))

@pytest.fixture
def slow():
    begun_s = time.monotonic()
    time.sleep(0.05)
    yield
    time.sleep(0.05)
    told("plain", begun_s)

@pytest.mark.parametrize("n", range(8))
def test_plain(slow, n):
    time.sleep(0.05)
"""


Spell = tuple[float, float]


def measured_beside(told: Path, other: str) -> tuple[Spell, list[Spell]]:
    """Return when it was measured, the test's own call apart, and when something else went on."""
    times: dict[str, list[Spell]] = {"call": [], other: []}
    for line in told.read_text().splitlines():
        what, begun, ended = line.split()
        times.setdefault(what, []).append((float(begun), float(ended)))
    _, *repeats = times["call"]
    assert len(repeats) > 5
    return (repeats[0][0], repeats[-1][1]), times[other]


def overlapping(measured: Spell, others: list[Spell]) -> list[Spell]:
    return [other for other in others if other[0] < measured[1] and other[1] > measured[0]]


@slow
@pytest.mark.parametrize("workers", [2, 4])
def test_no_worker_is_inside_a_test_while_another_measures(
    suite: Any, pytester: pytest.Pytester, workers: int
) -> None:
    """Setup and teardown included; the call that is the test's own runs beside others."""
    result = suite(CALLS, f"-n{workers}")
    assert result.ret == pytest.ExitCode.OK
    measured, tests = measured_beside(pytester.path / "told.txt", "plain")
    assert len(tests) == 8
    assert not overlapping(measured, tests)


LAST = """
import time

def pytest_sessionfinish(session):
    session.config.begun_s = time.monotonic()

def pytest_unconfigure(config):
    if hasattr(config, "workerinput"):
        time.sleep(0.2)
        with open("told.txt", "a") as out:
            out.write(f"ending {config.begun_s} {time.monotonic()}\\n")
"""


@slow
def test_no_workers_session_ends_while_another_measures(
    suite: Any, pytester: pytest.Pytester
) -> None:
    """What plugins do then takes a second or two, and pytest collects garbage."""
    source = CALLS.replace("max_latency_ms(500)", "max_latency_ms(10.2)")
    result = suite(source, "-n2", "-k", "measured or 0", "--nnscale-max-time=1", conftest=LAST)
    assert "2 passed" in result.stdout.str() or "1 failed, 1 passed" in result.stdout.str()
    measured, endings = measured_beside(pytester.path / "told.txt", "ending")
    assert len(endings) == 2
    assert not overlapping(measured, endings)


@pytest.mark.parametrize(
    "workers", [(), pytest.param(("-n2",), marks=slow)], ids=["one process", "two workers"]
)
def test_every_test_of_such_a_session_holds_from_setup_to_teardown(
    suite: Any, workers: Any
) -> None:
    """Those without budgets, too: what they do would be noise."""
    result = suite(
        SAMPLED
        + f"""
import os

@pytest.fixture
def around():
    assert os.environ.get({VARIABLE!r})
    yield
    assert os.environ.get({VARIABLE!r})

@pytest.mark.parametrize("n", range(4))
def test_plain(around, n):
    assert os.environ.get({VARIABLE!r})
""",
        *workers,
    )
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=5)


@slow
def test_a_session_without_sampled_budgets_pays_nothing(suite: Any, machine: Path) -> None:
    """Nothing is imported, nothing locked, nothing made."""
    conftest = f"""
        import os, sys

        def pytest_unconfigure(config):
            names = [n for n in sys.modules if n.startswith("pytest_nnscale.timing")]
            print("loaded:", names, {VARIABLE!r} in os.environ)
        """
    exact = SAMPLED.replace("max_latency_ms", "max_flops")
    result = suite(exact, "-s", conftest=conftest, subprocess=True)
    assert result.ret == pytest.ExitCode.OK
    assert "loaded: [] False" in result.stdout.str()
    assert not machine.exists()
    result = suite(SAMPLED, "-s", conftest=conftest, subprocess=True)
    assert "pytest_nnscale.timing.quiet" in result.stdout.str()
    assert machine.exists()


@pytest.mark.parametrize("chosen", [("-k", "exact"), ("--collect-only",)])
def test_what_is_not_run_makes_nobody_wait(suite: Any, machine: Path, chosen: Any) -> None:
    """A sampled budget that is deselected, or only listed."""
    exact = "\n@pytest.mark.max_flops(100)\ndef test_exact(): model(x)\n"
    result = suite(SAMPLED + exact, *chosen)
    assert result.ret == pytest.ExitCode.OK
    assert not machine.exists()


INNER = '''
pytest_plugins = ["pytester"]
INNER = """
import pytest
import torch

model, x = torch.nn.Linear(2, 2), torch.ones(1, 2)

@pytest.mark.parametrize("n", range(2))
@pytest.mark.max_latency_ms(10000)
def test_it(n):
    model(x)

def test_plain():
    pass
"""

def run(pytester, how):
    pytester.makepyfile(INNER)
    words = ["-p", "no:cacheprovider", "--nnscale-max-wait=20", "--nnscale-max-time=1"]
    if how == "workers":
        words += ["-n2"]
    run = pytester.runpytest_inprocess if how == "inprocess" else pytester.runpytest_subprocess
    result = run(*words)
    result.assert_outcomes(passed=3)
    assert "2 budgets: 2 within" in result.stdout.str()
'''
HOW = ["inprocess", "subprocess", "workers"]


@slow
@pytest.mark.parametrize("how", HOW)
def test_a_session_inside_a_test_does_not_wait_for_it(suite: Any, how: str) -> None:
    """Tests of pytest plugins run pytest: in their own process, in another, with workers."""
    result = suite(
        SAMPLED + INNER + f"\ndef test_outer(pytester): run(pytester, {how!r})\n",
        "--nnscale-max-wait=30",
        subprocess=True,
    )
    assert result.ret == pytest.ExitCode.OK, result.stdout.str()
    result.assert_outcomes(passed=2)


@slow
def test_workers_whose_tests_run_sessions_take_turns(suite: Any) -> None:
    """Each inner measurement waits for the other worker's test, and neither for its own."""
    outer = f"""
@pytest.mark.parametrize("how", {HOW * 2})
def test_outer(pytester, how): run(pytester, how)
"""
    result = suite(SAMPLED + INNER + outer, "-n2", "--nnscale-max-wait=60", subprocess=True)
    assert result.ret == pytest.ExitCode.OK, result.stdout.str()
    result.assert_outcomes(passed=7)


ENDED = """
class Ends(nn.Module):
    calls = 0
    def forward(self, x):
        self.calls += 1
        if self.calls == 3:
            {how}
        return x + 1

@pytest.mark.max_latency_ms(10000)
def test_ends(nnscale):
    nnscale(Ends(), torch.ones(1))
"""


@slow
@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("raise KeyboardInterrupt", pytest.ExitCode.INTERRUPTED),
        ("pytest.fail('enough')", pytest.ExitCode.TESTS_FAILED),
        ("raise ValueError('no more')", pytest.ExitCode.TESTS_FAILED),
        ("import os; os.kill(os.getpid(), 9)", -9),
    ],
)
def test_a_session_that_ended_while_it_measured_holds_nobody_off(
    suite: Any, machine: Path, how: str, code: int
) -> None:
    """However it ended."""
    result = suite(ENDED.format(how=how), subprocess=True)
    assert result.ret == code
    with Quiet(0.5, folder=machine).measuring(ALONE):
        pass


@slow
def test_a_worker_that_is_killed_while_it_measures_holds_nobody_off(suite: Any) -> None:
    """xdist starts another worker, and that and the rest of the session go on."""
    rest = "\n@pytest.mark.parametrize('n', range(4))\ndef test_plain(n): pass\n"
    source = ENDED.format(how="import os; os.kill(os.getpid(), 9)") + SAMPLED + rest
    result = suite(source, "-n2", "--nnscale-max-wait=60")
    result.assert_outcomes(passed=5, failed=1)
    assert "crashed while running" in result.stdout.str()
    assert "1 budget: 1 within, 0 over, 0 inconclusive, 0 unmeasured" in result.outlines


def test_locks_are_not_in_the_log_of_a_test(suite: Any) -> None:
    """Also not where everything is logged."""
    source = SAMPLED.replace("max_latency_ms(10000)", "max_latency_ms(0.000001)")
    result = suite(source, "--log-level=DEBUG")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "needs" in result.stdout.str()
    assert "log call" not in result.stdout.str()


COMPARES = (
    MODEL
    + """
@pytest.fixture
def holds():
    import os
    return os.environ.get("PYTEST_NNSCALE_HOLDS")

def test_other(holds): assert holds
"""
)


@pytest.mark.parametrize(
    "test",
    [
        "def test_it(nnscale):\n    nnscale.compare(model, model, x, max_ratio=1e9)",
        "def test_it(nnscale):\n    [f() for f in [lambda: nnscale.compare(model, model, x, max_ratio=1e9)]]",
        "def test_it(request):\n    request.node.add_marker(pytest.mark.max_latency_ms(10000))\n    model(x)",
        "def test_it():\n    from pytest_nnscale import profile\n    profile(model, (x,), metrics='flops,latency')",
        "def test_it():\n    from pytest_nnscale import profile\n    profile(model, (x,), metrics=['latency'])",
    ],
    ids=["compare", "inside a function", "a mark in the body", "profile", "a list of metrics"],
)
def test_what_samples_without_a_budget_lets_all_tests_hold(suite: Any, test: str) -> None:
    """As far as the tests say so themselves."""
    result = suite(f"{COMPARES}\n{test}\n", "--nnscale-max-time=0.2")
    # A fifth of a second may not do for a verdict; it is the other test that has to hold.
    assert result.parseoutcomes().get("passed", 0) >= 1
    assert "test_other" not in result.stdout.str().partition("short test summary")[2]


@pytest.mark.parametrize(
    "test",
    [
        "def test_it(nnscale): nnscale(model, x)",
        "def test_it(request): model(x)",
        "def test_it():\n    from pytest_nnscale import profile\n    profile(model, (x,), metrics='flops')",
    ],
)
def test_what_samples_nothing_makes_nobody_hold(suite: Any, machine: Path, test: str) -> None:
    """The fixture alone, and exact profiles."""
    result = suite(f"{MODEL}\n{test}\n")
    assert result.ret == pytest.ExitCode.OK
    assert not machine.exists()


@slow
def test_on_a_worker_that_takes_no_turns_the_measurement_says_so(suite: Any) -> None:
    """Nothing in the test tells that it samples; what it finds is no silent number."""
    files = {
        "checking.py": """
        def check(nnscale, model, x):
            nnscale.compare(model, model, x, max_ratio=1e9)
        """
    }
    source = MODEL + "from checking import check\ndef test_it(nnscale): check(nnscale, model, x)\n"
    source += "def test_other(): pass\n"
    result = suite(source, "-n2", "--junit-xml=out.xml", files=files)
    assert result.ret == pytest.ExitCode.OK
    assert "were not held off" in Path("out.xml").read_text()


@pytest.mark.usefixtures("busy")
def test_a_profile_waits_for_tests_too() -> None:
    """Without pytest around it, as on the command line."""
    import torch

    from pytest_nnscale import profile

    hasty = {"nnscale_max_wait": 0.3}
    call = torch.nn.Linear(2, 2), (torch.ones(1, 2),)
    found = profile(*call, metrics="latency", options=hasty).latency_s
    assert found is not None
    assert found.value is None
    assert found.reason.startswith(WAITED)


@pytest.mark.usefixtures("busy")
def test_a_long_wait_is_told_and_noted(
    suite: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """For whom, while it lasts."""
    monkeypatch.setattr("pytest_nnscale.timing.patience._SOON_S", 0.1)
    monkeypatch.setattr("pytest_nnscale.timing.quiet._LONG_S", 0.0)
    result = suite(SAMPLED, "--nnscale-max-wait=0.5")
    assert "nnscale: waiting for another session's test (process " in result.stderr.str()


def test_a_session_that_cannot_hold_warns_once(suite: Any, machine: Path) -> None:
    """Its tests run, unseen by others, and nothing is measured."""
    machine.write_text("")
    result = suite(SAMPLED + "\ndef test_plain(): pass\n")
    result.assert_outcomes(passed=1, failed=1, warnings=1)
    assert "tests run unseen by measurements of other processes" in result.stdout.str()
    assert "it is no folder" in result.stdout.str()


@pytest.mark.parametrize(("wait_s", "warns"), [("1", 1), ("1.5", 0)])
def test_a_wait_shorter_than_a_measurement_is_warned_of(
    suite: Any, wait_s: str, warns: int
) -> None:
    """A test would go on before it had ended, and spoil it."""
    words = f"--nnscale-max-wait={wait_s}", "--nnscale-max-time=1"
    result = suite(SAMPLED, *words)
    result.assert_outcomes(passed=1, warnings=warns)
    assert suite(SAMPLED, *words, "-W", "error").ret == pytest.ExitCode.OK


LOOKED_AT = """
def test_looked_at(request):
    from pathlib import Path
    from pytest_nnscale.timing.board import Board
    from pytest_nnscale.timing.hold import ALONE, Hold
    board = Board(Path(FOLDER))
    def held():
        return [str(hold) for hold in board.in_the_way(Hold.new(ALONE, "x"))]
    assert held()
    hook = request.config.hook
    hook.pytest_enter_pdb(config=request.config, pdb=None)
    assert not held()
    hook.pytest_leave_pdb(config=request.config, pdb=None)
    assert held()
    hook.pytest_enter_pdb(config=request.config, pdb=None)
"""


def test_a_debugger_lends_the_hold_of_its_test(suite: Any, machine: Path) -> None:
    """It is taken back when the test goes on, and let go where the session is quit."""
    result = suite(f"FOLDER = {str(machine)!r}\n{SAMPLED}\n{LOOKED_AT}")
    assert result.ret == pytest.ExitCode.OK, result.stdout.str()
    with Quiet(0.5, folder=machine).measuring(ALONE):
        pass
