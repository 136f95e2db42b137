"""`nnscale energy`: what is listed, as lines and as JSON, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pytest_nnscale.cli import app
from pytest_nnscale.power import command
from pytest_nnscale.power.counter import FakeCounter
from pytest_nnscale.power.sources import Finding
from pytest_nnscale.power.wanted import Wanted

RAPL = FakeCounter(1.0, lambda: 0.0, 61e-6, "RAPL package-0", "cpu", 1e-3)
GPU = FakeCounter(1.0, lambda: 0.0, 0.0, "NVML power of P4", "cuda:0", 0.1, notes=("averaged",))
THERE = Finding("rapl", "cpu", (RAPL,))
POWER = Finding("nvml", "cuda:0", (GPU,))
NOT_THERE = Finding("zeus", "mps", (), "no chip", "buy one")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """Return what is found of this machine, which a test fills."""
    findings: list[Finding] = []
    monkeypatch.setattr(command, "look_around", lambda _wanted, _gpus: tuple(findings))
    return findings


def test_counters_and_why_there_are_none(found: list[Finding]) -> None:
    """A line each, in columns, with how finely it counts."""
    found += [THERE, POWER, NOT_THERE]
    told = CliRunner().invoke(app, ["energy"])
    assert told.exit_code == 0
    assert told.stdout.splitlines() == [
        "source  device  step     updated every  counter",
        "rapl    cpu     61.0 uJ  1.00 ms        RAPL package-0",
        "nvml    cuda:0  -        100 ms         NVML power of P4; averaged",
        "zeus    mps     -        -              none: no chip; buy one",
    ]


def test_the_same_as_json(found: list[Finding]) -> None:
    """In joules and seconds."""
    found += [THERE, NOT_THERE]
    there, not_there = json.loads(CliRunner().invoke(app, ["energy", "--json"]).stdout)
    assert there == {
        "source": "rapl",
        "device": "cpu",
        "reason": "",
        "remedy": "",
        "counters": [
            {
                "name": "RAPL package-0",
                "device": "cpu",
                "resolution_j": 61e-6,
                "resolution_s": 1e-3,
                "notes": [],
            }
        ],
    }
    assert (not_there["reason"], not_there["remedy"]) == ("no chip", "buy one")
    assert not_there["counters"] == []


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_none_at_all_is_an_exit_code(found: list[Finding], words: list[str]) -> None:
    """A script can ask."""
    found.append(NOT_THERE)
    assert CliRunner().invoke(app, ["energy", *words]).exit_code == 5


def test_the_tree_that_is_named_is_the_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And has to be one."""
    asked: list[Wanted] = []
    monkeypatch.setattr(command, "look_around", lambda wanted, _gpus: asked.append(wanted) or ())
    told = CliRunner().invoke(app, ["energy", "--powercap-root", str(tmp_path)])
    assert told.exit_code == 2
    assert "is no powercap tree: it holds folders such as intel-rapl:0" in told.stderr
    assert not asked
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0/name").write_text("package-0")
    CliRunner().invoke(app, ["energy", "--powercap-root", str(tmp_path)])
    assert asked == [Wanted(powercap_root=tmp_path)]
