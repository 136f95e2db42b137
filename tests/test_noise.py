"""The noise of a machine: floors from restarts, stored for it, and warnings of what is below."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from pytest_nnscale.budget import Budget, Verdict, judge
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.noise import Floor, Noise, any_known, doubts, floor_of, whole_id

FLOOR = Floor(0.03, 0.05, 0.1)


def restarts(
    r: random.Random, n: int, *, apart: float, wandering: float
) -> tuple[list[float], list[tuple[float, float]]]:
    """Return restarts of identical code: sides differ a little, and both wander from time to time."""
    seconds = []
    for _ in range(n):
        level = 0.01 * math.exp(r.gauss(0, wandering))
        seconds.append((level, level * math.exp(r.gauss(0, apart))))
    return [math.log(head / base) for base, head in seconds], seconds


@pytest.mark.parametrize(("apart", "wandering"), [(0.01, 0.01), (0.01, 0.2), (0.05, 0.05)])
def test_the_next_restarts_of_identical_code_are_below_the_floor(
    apart: float, wandering: float
) -> None:
    """Their mean, one of them, and alone: in 99 of a hundred, as the confidence says."""
    r, runs, beyond = random.Random(1), 1000, [0, 0, 0]
    for _ in range(runs):
        floor = floor_of(*restarts(r, 6, apart=apart, wandering=wandering), confidence=0.99)
        logs, now = restarts(r, 6, apart=apart, wandering=wandering)
        before = 0.01  # the median of all sessions
        beyond[0] += abs(math.fsum(logs) / 6) > math.log1p(floor.ratio)
        beyond[1] += abs(math.log(now[0][0] / before)) > math.log1p(floor.time)
        beyond[2] += abs(logs[0]) > math.log1p(floor.process)
    for wrong in beyond:
        assert wrong <= 0.01 * runs + 4 * math.sqrt(0.01 * runs)


def test_turns_leave_out_what_both_sides_share() -> None:
    """A machine that wanders by a fifth still tells two versions apart that take turns."""
    floor = floor_of(*restarts(random.Random(3), 8, apart=0.01, wandering=0.2), confidence=0.99)
    assert floor.ratio < 0.05
    assert floor.time > 0.2


def test_a_floor_comes_back_on_the_same_machine(tmp_path: Path) -> None:
    """For the same test, call and phase, and no other."""
    assert not any_known(tmp_path)
    noise = Noise(tmp_path)
    noise.remember("/a/test_it.py::test_it", 1, "inference", FLOOR)
    assert any_known(tmp_path)
    again = Noise(tmp_path)
    assert again.recall("/a/test_it.py::test_it", 1, "inference") == FLOOR
    assert again.recall("/a/test_it.py::test_it", 2, "inference") is None
    assert again.recall("/a/test_it.py::test_it", 1, "training") is None
    assert again.recall("/b/test_it.py::test_it", 1, "inference") is None


def test_a_floor_is_that_of_its_threads(tmp_path: Path) -> None:
    """Of those that the suite ran with, not of those that the command has."""
    Noise(tmp_path, threads=7).remember("t", 1, "inference", FLOOR)
    assert Noise(tmp_path).recall("t", 1, "inference") is None
    assert Noise(tmp_path, threads=7).recall("t", 1, "inference") == FLOOR


def test_another_machine_knows_nothing(tmp_path: Path) -> None:
    """Floors that a cache carried there are none."""
    noise = Noise(tmp_path)
    noise.remember("/a/test_it.py::test_it", 1, "inference", FLOOR)
    for file in (tmp_path / "noise").iterdir():
        told = json.loads(file.read_text())
        told["identity"]["machine"]["cpu"] = "another"
        file.write_text(json.dumps(told))
    assert Noise(tmp_path).recall("/a/test_it.py::test_it", 1, "inference") is None


def test_an_id_has_the_full_path_of_its_file(tmp_path: Path) -> None:
    """So that two projects with a tests/test_model.py do not share a floor."""
    file = tmp_path / "tests" / ".." / "tests" / "test_it.py"
    whole = whole_id(file, "tests/test_it.py::test_it[a-1]")
    assert whole == f"{tmp_path.resolve() / 'tests' / 'test_it.py'}::test_it[a-1]"


def told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: Budget, value: float
) -> list[str]:
    """Return the doubts about a verdict, where the floors are 5, 20 and 50 per cent."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    Noise().remember("t", 1, budget.phase, Floor(0.05, 0.2, 0.5))
    found = Measurement(budget.metric, value, value, value)
    verdict = Verdict(budget, found, judge(budget, found), 1)
    return [text for _, text in doubts([verdict], "t")]


@pytest.mark.parametrize(
    ("budget", "value", "doubt"),
    [
        (Budget(Metric.LATENCY, 0.012), 0.010, "smallest budget that it can tell from what was measured is 15.0 ms"),
        (Budget(Metric.LATENCY, 0.008), 0.010, "smallest budget that it can tell from what was measured is 15.0 ms"),
        (Budget(Metric.LATENCY, 0.0151), 0.010, ""),
        (Budget(Metric.LATENCY, 0.0066), 0.010, ""),
        (Budget(Metric.LATENCY, 0), 0.010, ""),
        (Budget(Metric.RATIO, 1.1), 1.0, "smallest budget that it can tell from what was measured is 1.2"),
        (Budget(Metric.RATIO, 1.3), 1.0, ""),
        (Budget(Metric.EFFICIENCY, 0.5), 0.6, "largest budget that it can tell from what was measured is 40.0 %"),
        (Budget(Metric.EFFICIENCY, 0.3), 0.6, ""),
        (Budget(Metric.LATENCY, 0.012, quantile=0.5), 0.010, "15.0 ms"),
        (Budget(Metric.LATENCY, 0.012, quantile=0.99), 0.010, ""),
        (Budget(Metric.LATENCY, 0.012, "training"), 0.010, "15.0 ms"),
        (Budget(Metric.ENERGY, 1.1), 1.0, ""),
    ],
)  # fmt: skip
def test_a_doubt_says_what_can_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: Budget, value: float, doubt: str
) -> None:
    """By the floor that is of its kind; of other quantiles than the median none is known."""
    texts = told(tmp_path, monkeypatch, budget, value)
    assert len(texts) == bool(doubt)
    assert doubt in "".join(texts)


SUITE = """
import time
import pytest

@pytest.mark.max_latency_ms({limit})
def test_it(nnscale):
    import torch
    def nap(x):
        time.sleep(0.004)
        return x + 1
    nnscale(nap, torch.ones(1))
"""


@pytest.mark.parametrize(
    ("limit", "warned", "ret"),
    [(6, 1, 0), (3, 1, 1), (100, 0, 0)],
    ids=["within", "over", "far"],
)
def test_a_budget_closer_than_the_noise_gets_a_warning(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    limit: float,
    warned: int,
    ret: int,
) -> None:
    """Whatever the verdict is, which stands."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    file = pytester.makepyfile(test_it=SUITE.format(limit=limit))
    Noise().remember(f"{file.resolve()}::test_it", 1, "inference", Floor(0.1, 0.1, 0.9))
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rw")
    assert result.ret == ret
    line = "*NnscaleWarning: max_latency_ms: nap *% apart, and on this machine identical code is up to 90.0 % apart (nnscale calibrate); the smallest budget that it can tell from what was measured is * ms*"
    if warned:
        result.stdout.fnmatch_lines([line])
    else:
        result.stdout.no_fnmatch_line(line)
