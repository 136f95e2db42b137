"""The options of energy: what is told of an estimate, and what is refused at start."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pytest_nnscale.meters import energy
from pytest_nnscale.power.counter import FakeCounter

BUDGET = """
    @pytest.mark.max_energy_j({limit})
    def test_it(nnscale):
        nnscale(nn.Linear(64, 64), torch.zeros(8, 64))
    """
ESTIMATE = "--nnscale-energy-source=estimate", "--nnscale-watts-per-core=8"


def test_an_estimate_says_that_it_is_one(suite: Any) -> None:
    """In the table of budgets, where it passes."""
    result = suite(BUDGET.format(limit=1000), *ESTIMATE, "-v")
    assert result.ret == pytest.ExitCode.OK
    assert "max_energy_j, an estimate" in result.stdout.str()


def test_an_estimate_over_the_budget_says_that_it_is_one(suite: Any) -> None:
    """And how it came about."""
    result = suite(BUDGET.format(limit=1e-9), *ESTIMATE)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    assert ": an estimate, no measurement" in text
    assert "estimate: CPU time x 8 W a core" in text


def test_an_estimate_is_not_what_is_required(suite: Any) -> None:
    """A machine that has to measure energy does not."""
    result = suite(BUDGET.format(limit=1000), *ESTIMATE, "--nnscale-require=energy")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert ": an estimate, no measurement" in result.stdout.str()


@pytest.fixture
def still_tree(tmp_path: Path) -> Path:
    """Return a powercap tree whose counter does not move."""
    zone = tmp_path / "tree/intel-rapl:0"
    zone.mkdir(parents=True)
    for file, text in (
        ("name", "package-0"),
        ("energy_uj", "7"),
        ("max_energy_range_uj", "9" * 12),
    ):
        (zone / file).write_text(text)
    return tmp_path / "tree"


def test_an_estimate_is_never_chosen_by_itself(suite: Any, still_tree: Path) -> None:
    """Also where watts a core are stated, and what is there counts nothing."""
    where = f"--nnscale-powercap-root={still_tree}", "--nnscale-max-time=0.5"
    result = suite(BUDGET.format(limit=1000), "--nnscale-watts-per-core=8", *where)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert (
        "could not be measured, budget 1.00 kJ: RAPL package-0 did not move" in result.stdout.str()
    )
    assert "an estimate" not in result.stdout.str()


def test_joules_and_watts_and_what_was_counted_are_told(
    suite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a counter of 10 W."""
    counter = FakeCounter(10.0, time.perf_counter)
    monkeypatch.setattr(energy, "find_counters", lambda _device, _wanted: (counter,))
    result = suite(BUDGET.format(limit=1e-9), "--nnscale-max-time=0.5")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "max_energy_j: Linear * budget 0.00100 uJ*",
            "*note: mean 10 W over * calls in * s by fake",
            "*note: idle 10 W before, 10 W after, included",
        ]
    )


def test_an_estimate_without_watts_is_refused_at_start(suite: Any) -> None:
    """Nobody else knows them, and a test that is skipped for it would be a gate that is off."""
    result = suite(BUDGET.format(limit=1000), "--nnscale-energy-source=estimate")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "nnscale_energy_source=estimate needs the power of a busy core" in result.stderr.str()


def test_a_source_of_another_device_is_no_machine_that_lacks_one(suite: Any) -> None:
    """Skipped, it would be a gate that is off on every machine."""
    result = suite(BUDGET.format(limit=1000), "--nnscale-energy-source=nvml")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    assert "nnscale_energy_source=nvml counts joules of cuda devices alone" in text
    assert "nnscale_energy_source=auto" in text


def test_grams_are_told_beside_joules(suite: Any) -> None:
    """Of the grid that is stated."""
    result = suite(BUDGET.format(limit=1e-9), *ESTIMATE, "--nnscale-grid-gco2-per-kwh=400")
    assert "g CO2e a call at 400 g/kWh" in result.stdout.str()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("energy-source=tdp", "'tdp' is not one of auto, nvml, rapl, zeus, estimate"),
        ("energy-scope=rack", "'rack' is not one of device, machine"),
        ("energy=net", "'net' is not one of total, above_idle"),
        ("grid-gco2-per-kwh=-1", "'-1' is not grams of CO2 a kWh, zero or above"),
        ("watts-per-core=0", "'0' is not watts above zero"),
        ("powercap-root=/nowhere", "'/nowhere' is no powercap tree"),
    ],
)
def test_what_is_not_known_is_refused_at_start(suite: Any, option: str, words: str) -> None:
    """With what is valid."""
    result = suite(BUDGET.format(limit=1), f"--nnscale-{option}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert words in result.stderr.str()


def test_a_folder_without_zones_is_no_powercap_tree(suite: Any, tmp_path: Path) -> None:
    """It says what one looks like."""
    (tmp_path / "empty").mkdir()
    result = suite(BUDGET.format(limit=1), f"--nnscale-powercap-root={tmp_path / 'empty'}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "it holds folders such as intel-rapl:0" in result.stderr.str()
