"""`nnscale calibrate`: identical code against itself, and what is stored of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pytest_nnscale.ab import calibrate as command
from pytest_nnscale.ab.comparison import Comparison, Report, Side, Timing
from pytest_nnscale.ab.ratio import Change, Ratio
from pytest_nnscale.budget import Phase
from pytest_nnscale.cli import app
from pytest_nnscale.noise import Floor, Noise

LOGS = (0.01, -0.02, 0.0, 0.015, -0.01, 0.005)
SECONDS = tuple((0.005 * (1 + log), 0.005) for log in LOGS)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a cache of its own, and a folder with a test file."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_it.py").touch()
    return tmp_path


def recalled(file: Path, phase: Phase = "inference", **how: int) -> Floor | None:
    return Noise(**how).recall(f"{file.resolve()}::test_it", 1, phase)


def reported(
    monkeypatch: pytest.MonkeyPatch, *comparisons: Comparison, threads: int | None = None
) -> list[object]:
    """Have the comparison come to this; return what it was asked."""
    asked: list[object] = []
    side = Side("the working tree", "", {}, threads)

    def compare(*args: object, **how: object) -> Report:
        asked.append((args, how))
        return Report(side, side, 0.05, 0.99, comparisons, restarts=6)

    monkeypatch.setattr(command, "compare_with_itself", compare)
    return asked


def timed(
    test: str, *, phase: Phase = "inference", file: str = "test_it.py", apart: float = 1.0
) -> Comparison:
    logs = tuple(apart * log for log in LOGS)
    timing = Timing(Ratio(1.0, 0.98, 1.02), 0.005, 0.005, logs, SECONDS)
    return Comparison(test, Change.SAME, 1, phase, timing=timing, file=file)


def test_floors_are_shown_and_stored(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the full path of the test, so that a session finds them again."""
    asked = reported(monkeypatch, timed("test_it.py::test_it"))
    result = CliRunner().invoke(app, ["calibrate", "--restarts=7", "--", "-k", "it"])
    assert result.exit_code == 0
    assert "5.00 ms" in result.output
    floor = recalled(cache / "test_it.py")
    assert floor is not None
    assert 0.01 < floor.ratio < 0.05
    assert f"{100 * floor.ratio:.1f} %" in result.output
    (args, how), *_ = asked
    assert args[1] == ("-k", "it")
    assert how["plan"].least == 7


@pytest.mark.usefixtures("cache")
def test_without_a_sampled_test_nothing_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 5, and what to do."""
    reported(monkeypatch)
    result = CliRunner().invoke(app, ["calibrate"])
    assert result.exit_code == 5
    assert "no test of either side has a budget for latency" in result.output


@pytest.mark.usefixtures("cache")
def test_a_test_that_could_not_be_timed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2, as for `nnscale ab`; the others are stored all the same."""
    failed = Comparison("test_it.py::test_b", Change.UNMEASURED, reason="it fails in base")
    reported(monkeypatch, timed("test_it.py::test_it"), failed)
    result = CliRunner().invoke(app, ["calibrate"])
    assert result.exit_code == 2
    assert "test_it.py::test_b: unmeasured: it fails in base" in result.output


def test_each_phase_keeps_its_floor(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training step does not overwrite the forward pass."""
    step = timed("test_it.py::test_it", phase="training", apart=3)
    reported(monkeypatch, timed("test_it.py::test_it"), step)
    result = CliRunner().invoke(app, ["calibrate"])
    both = recalled(cache / "test_it.py"), recalled(cache / "test_it.py", "training")
    assert both[0] is not None
    assert both[1] is not None
    assert both[1].ratio > 2 * both[0].ratio
    assert "test_it.py::test_it (training)" in result.output


def test_floors_are_stored_for_the_threads_of_the_suite(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its conftest may set another number than this process has."""
    reported(monkeypatch, timed("test_it.py::test_it"), threads=7)
    CliRunner().invoke(app, ["calibrate"])
    assert recalled(cache / "test_it.py") is None
    assert recalled(cache / "test_it.py", threads=7) is not None


def test_floors_are_found_again_when_started_in_a_folder_below(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids start at the root of pytest, files where the command was started."""
    (cache / "part").mkdir()
    monkeypatch.chdir(cache / "part")
    reported(monkeypatch, timed("part/test_it.py::test_it", file="test_it.py"))
    CliRunner().invoke(app, ["calibrate"])
    assert recalled(cache / "part" / "test_it.py") is not None


@pytest.mark.usefixtures("cache")
def test_what_does_not_run_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows cannot hand pipes on: a sentence, before anything is started."""
    asked = reported(monkeypatch)
    monkeypatch.setattr(command.os, "name", "nt")
    result = CliRunner().invoke(app, ["calibrate"])
    monkeypatch.undo()
    assert (result.exit_code, asked) == (2, [])
    assert "needs POSIX" in result.output


@pytest.mark.usefixtures("cache")
def test_a_wait_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no number of seconds."""
    asked = reported(monkeypatch)
    result = CliRunner().invoke(app, ["calibrate", "--max-wait=inf"])
    assert (result.exit_code, asked) == (2, [])
    assert "--max-wait: inf is no number of seconds" in result.output


@pytest.mark.slow
def test_a_real_suite_is_calibrated(cache: Path) -> None:
    """Without git, in the folder that it is started in."""
    (cache / "test_it.py").write_text(
        "import time\nimport pytest\nimport torch\n\n"
        "@pytest.mark.max_latency_ms(1000)\n"
        "def test_it(nnscale):\n"
        "    nnscale(lambda x: (time.sleep(0.003), x + 1)[1], torch.ones(1))\n"
    )
    result = CliRunner().invoke(app, ["calibrate"])
    assert result.exit_code == 0, result.output
    assert recalled(cache / "test_it.py") is not None
