"""`nnscale calibrate`: identical code against itself, and what is stored of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pytest_nnscale.ab import calibrate as command
from pytest_nnscale.ab.comparison import Comparison, Report, Side, Timing
from pytest_nnscale.ab.ratio import Change, Ratio
from pytest_nnscale.cli import app
from pytest_nnscale.noise import Noise

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


def reported(monkeypatch: pytest.MonkeyPatch, *comparisons: Comparison) -> list[object]:
    """Have the comparison come to this; return what it was asked."""
    asked: list[object] = []
    side = Side("the working tree", "", {})

    def compare(*args: object, **how: object) -> Report:
        asked.append((args, how))
        return Report(side, side, 0.05, 0.99, comparisons, restarts=6)

    monkeypatch.setattr(command, "compare_with_itself", compare)
    return asked


def timed(test: str) -> Comparison:
    timing = Timing(Ratio(1.0, 0.98, 1.02), 0.005, 0.005, LOGS, SECONDS)
    return Comparison(test, Change.SAME, call=1, timing=timing)


def test_floors_are_shown_and_stored(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the full path of the test, so that a session finds them again."""
    asked = reported(monkeypatch, timed("test_it.py::test_it"))
    result = CliRunner().invoke(app, ["calibrate", "--restarts=7", "--", "-k", "it"])
    assert result.exit_code == 0
    assert "5.00 ms" in result.output
    floor = Noise().recall(f"{cache.resolve() / 'test_it.py'}::test_it", 1)
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
    """Exit code 1; the others are stored all the same."""
    failed = Comparison("test_it.py::test_b", Change.UNMEASURED, reason="it fails in base")
    reported(monkeypatch, timed("test_it.py::test_it"), failed)
    result = CliRunner().invoke(app, ["calibrate"])
    assert result.exit_code == 1
    assert "test_it.py::test_b: unmeasured: it fails in base" in result.output


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
    assert Noise().recall(f"{cache.resolve() / 'test_it.py'}::test_it", 1) is not None
