"""Efficiency: what a call takes at best, over what it takes; or why that is not known."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from pytest_nnscale.budget import Budget, Outcome, judge
from pytest_nnscale.ceiling import roofline as roofline_room
from pytest_nnscale.ceiling.roofline import Attainable
from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.judging import judge_observation
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters.efficiency import measure_efficiency
from pytest_nnscale.meters.effort import Effort
from pytest_nnscale.meters.table import measure
from pytest_nnscale.observing import observe
from pytest_nnscale.workload import Workload

LAYER, X = nn.Linear(1000, 1000, bias=False), torch.rand(1000, 1000)  # 2 GFLOP, 12 MB
FLOPS = Measurement.exact(Metric.FLOPS, 2 * 10**9)


class FakeRoofline:
    """Ceilings that tests set: 100 GFLOP/s and 10 GB/s, and others once they are measured again."""

    def __init__(self, *again: float, trouble: str = "") -> None:
        self.trouble = trouble
        self._faster = itertools.chain([1.0], again)
        self._factor = next(self._faster)
        self.asked: list[tuple[Mapping[Any, int], int]] = []
        self.measured_again = 0

    def attainable(self, flops: Mapping[Any, int], nbytes: int) -> Attainable:
        self.asked.append((dict(flops), nbytes))
        compute_s = sum(flops.values()) / (self._factor * 100e9)
        return Attainable(compute_s, nbytes / (self._factor * 10e9))

    def measure_again(self) -> None:
        self.measured_again += 1
        self._factor = next(self._faster)


class Timer:
    """A timer that finds a set interval, and notes what it was asked."""

    def __init__(self, lower: float, value: float, upper: float, **more: Any) -> None:
        self.found = Measurement(Metric.LATENCY, value, lower, upper, **more)
        self.asked: list[float | None] = []

    def __call__(self, limit_s: float | None) -> Measurement:
        self.asked.append(limit_s)
        return self.found


@torch.no_grad()
def product() -> torch.Tensor:
    return LAYER(X)


@torch.no_grad()
def gelu() -> torch.Tensor:
    return torch.nn.functional.gelu(X)


def measured(timer: Timer, call: Any = product, **how: Any) -> Measurement:
    how = {"flops": FLOPS, "roofline": FakeRoofline(), **how}
    return measure_efficiency(call, timer=timer, **how)


def test_it_is_the_time_at_best_over_the_time_that_it_takes() -> None:
    """2 GFLOP at 100 GFLOP/s take 20 ms; the slower end of the interval is the lower one."""
    found = measured(Timer(0.040, 0.050, 0.080))
    assert found.metric is Metric.EFFICIENCY
    assert found.value == pytest.approx(0.4)
    assert (found.lower, found.upper) == pytest.approx((0.25, 0.5))


def test_what_does_no_contraction_is_held_against_the_bytes() -> None:
    """8 MB at 10 GB/s take 0.8 ms."""
    flops = Measurement.exact(Metric.FLOPS, 0)
    found = measured(Timer(1e-3, 1.6e-3, 2e-3), gelu, flops=flops)
    assert found.value == pytest.approx(0.5)
    assert found.notes[0] == "it takes 1.60 ms, at best 800 us for 8.00 MB at 10.0 GB/s"


def test_both_bounds_are_told_the_nearer_first() -> None:
    """A reader sees what to work on."""
    found = measured(Timer(0.040, 0.050, 0.080))
    assert found.notes[0] == (
        "it takes 50.0 ms, at best 20.0 ms for 2.00 GFLOP at 100 GFLOP/s "
        "(1.20 ms for 12.0 MB at 10.0 GB/s)"
    )


def test_samples_notes_and_disturbance_are_those_of_the_latency() -> None:
    """A GPU that throttled says nothing of an efficiency either."""
    timer = Timer(
        0.04, 0.05, 0.08, samples=(0.04, 0.05, 0.08), method="CUDA events", notes=("3 samples",),
        disturbed="the GPU throttled (power cap)", remedy="let it cool down",
    )  # fmt: skip
    found = measured(timer)
    assert found.remedy == "let it cool down"
    assert found.samples == pytest.approx((0.5, 0.4, 0.25))
    assert (found.method, found.notes[1:]) == ("CUDA events", ("3 samples",))
    assert found.disturbed == "the GPU throttled (power cap)"
    assert judge(Budget(Metric.EFFICIENCY, 0.1), found) is Outcome.INCONCLUSIVE


def test_it_is_timed_until_it_is_known_on_which_side_of_the_limit_it_lies() -> None:
    """Forty per cent of the ceiling is 50 ms here; without a limit there is none."""
    timer = Timer(0.04, 0.05, 0.08)
    measured(timer, limit=0.4)
    measured(timer)
    assert timer.asked == [pytest.approx(0.05), None]


@pytest.mark.parametrize(
    ("lower", "upper", "enough"),
    [(0.04, 0.049, True), (0.051, 0.06, False), (0.04, 0.06, False), (0.049, 0.06, False)],
)
def test_a_latency_that_tells_already_is_not_measured_again(
    lower: float, upper: float, enough: bool
) -> None:
    """Its interval lies below the 50 ms that matter here; above them it may be that of a moment."""
    timer = Timer(0.04, 0.05, 0.08)
    timed = Measurement(Metric.LATENCY, upper, lower, upper)
    found = measured(timer, limit=0.4, timed=timed)
    assert timer.asked == ([] if enough else [pytest.approx(0.05)])
    assert found.lower == pytest.approx(0.02 / (upper if enough else 0.08))


def test_a_latency_that_could_not_be_measured_is_not_tried_twice() -> None:
    """It takes as long as it is given, for nothing."""
    timer = Timer(0.04, 0.05, 0.08)
    timed = Measurement.nothing(Metric.LATENCY, reason="no time for so many", remedy="longer")
    found = measured(timer, limit=0.4, timed=timed)
    assert (found.reason, found.remedy, timer.asked) == ("no time for so many", "longer", [])
    assert found.unmeasured


def test_unknown_flops_are_an_unknown_efficiency() -> None:
    """Never that of those which are known: nothing is run."""
    flops = Measurement.at_least(
        Metric.FLOPS, 10, reason="no formula for my::op", remedy="write it"
    )
    timer = Timer(0.04, 0.05, 0.08)
    found = measured(timer, flops=flops)
    assert (found.value, found.lower, found.upper) == (None, None, None)
    assert (found.reason, found.remedy) == ("no formula for my::op", "write it")
    assert timer.asked == []
    assert judge(Budget(Metric.EFFICIENCY, 0.1), found) is Outcome.UNMEASURED


def test_a_latency_without_an_interval_is_no_efficiency() -> None:
    """With its own reason."""
    timer = Timer(0.04, 0.05, 0.08)
    timer.found = Measurement.nothing(Metric.LATENCY, reason="too slow", remedy="longer")
    found = measured(timer)
    assert (found.value, found.reason, found.remedy) == (None, "too slow", "longer")


def test_a_time_that_may_be_nothing_leaves_no_upper_end() -> None:
    """The lower end is shown all the same, and decides."""
    found = measured(Timer(0.0, 0.05, 0.08))
    assert (found.lower, found.upper) == (pytest.approx(0.25), None)
    assert judge(Budget(Metric.EFFICIENCY, 0.2), found) is Outcome.WITHIN
    # Within a fifth below the limit, and no telling how far above.
    assert judge(Budget(Metric.EFFICIENCY, 0.26), found) is Outcome.UNMEASURED
    assert found.reason == "the call may take no time at all, as far as is known"


@pytest.mark.parametrize("error", [ValueError("once only"), CannotMeasure("once only")])
def test_a_call_that_raises_is_unmeasured(error: Exception) -> None:
    """With its error for a reason."""

    def call() -> None:
        raise error

    found = measured(Timer(0.04, 0.05, 0.08), call)
    assert found.value is None
    assert "once only" in found.reason


def test_an_operator_that_only_a_repeat_runs_is_unmeasured() -> None:
    """Its FLOPs are not among those that were counted."""
    with torch.library._scoped_library("efficiency_tests", "FRAGMENT") as lib:
        lib.define("twist(Tensor x) -> Tensor")
        lib.impl("twist", lambda x: x.clone(), "CPU")
        found = measured(Timer(1, 1, 1), lambda: torch.ops.efficiency_tests.twist(X))
    assert found.reason.startswith("no formula for efficiency_tests::twist")


def test_what_neither_contracts_nor_reads_anything_is_unmeasured() -> None:
    """Zero seconds at best are no ceiling."""
    flops = Measurement.exact(Metric.FLOPS, 0)
    found = measured(Timer(1, 1, 1), lambda: torch.ones(4).add_(1).shape, flops=flops)
    assert found.reason == "the call does no contraction, and moves no bytes that could be told"


def test_a_ceiling_that_is_beaten_is_measured_again() -> None:
    """It was held up: with the right one, twice as high, the call is at 83 %."""
    roofline = FakeRoofline(2.0)
    found = measured(Timer(0.012, 0.012, 0.012), roofline=roofline)
    assert roofline.measured_again == 1
    assert found.value == pytest.approx(0.01 / 0.012)


def test_a_ceiling_that_is_beaten_again_is_said() -> None:
    """Winograd's convolutions do less than is counted."""
    found = measured(Timer(0.012, 0.012, 0.012), roofline=FakeRoofline(1.0))
    assert found.value == pytest.approx(0.02 / 0.012)
    assert "that is more than the ceiling" in found.notes[1]


def test_a_ceiling_that_is_met_within_noise_is_left() -> None:
    """A product of matrices is its own ceiling."""
    roofline = FakeRoofline()
    found = measured(Timer(0.0195, 0.0195, 0.0195), roofline=roofline)
    assert roofline.measured_again == 0
    assert len(found.notes) == 1


def test_a_ceiling_that_cannot_be_stored_is_said() -> None:
    """Each run takes a second longer, and may differ."""
    found = measured(Timer(0.04, 0.05, 0.08), roofline=FakeRoofline(trouble="no space left"))
    assert found.notes[1] == "the ceiling is measured in every run: no space left"


def test_a_dtype_without_a_ceiling_is_unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of integers, say: the real roofline refuses them."""
    monkeypatch.setattr(roofline_room, "cache_folder", lambda: None)
    x = torch.ones(64, 64, dtype=torch.int64)
    found = measured(Timer(1, 1, 1), lambda: x @ x, roofline=None)
    assert found.reason.startswith("there is no ceiling for products of int64")


def seen_of(model: nn.Module, *args: torch.Tensor) -> Any:
    return observe(Workload(model, args), runs=True)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakeRoofline:
    """Put set ceilings where those of this machine would be measured."""
    fake = FakeRoofline()
    monkeypatch.setattr(roofline_room, "Roofline", lambda device: fake)
    return fake


def timing(timer: Timer) -> Effort:
    return Effort(timer=lambda call, *, quantile, device: timer(quantile))


def test_a_workload_is_measured_through_the_whole_pipeline(machine: FakeRoofline) -> None:
    """Its output counts as written, since the repeat returns it."""
    timer = Timer(0.04, 0.05, 0.08)
    found = measure(Metric.EFFICIENCY, seen_of(LAYER, X), effort=timing(timer))
    assert found.value == pytest.approx(0.4)
    assert found.subject == "Linear"
    ((flops, nbytes),) = machine.asked
    assert sum(flops.values()) == 2 * 10**9
    assert nbytes == 3 * 4 * 10**6


def test_the_median_is_timed_once_for_both_budgets(machine: FakeRoofline) -> None:
    """And again only where the one tells nothing for the other."""
    timer = Timer(0.04, 0.05, 0.06)
    budgets = [Budget(Metric.LATENCY, 0.1), Budget(Metric.EFFICIENCY, 0.3)]
    verdicts = judge_observation(budgets, seen_of(LAYER, X), timing(timer))
    assert [verdict.outcome for verdict in verdicts] == [Outcome.WITHIN, Outcome.WITHIN]
    assert timer.asked == [0.5]
    budgets = [Budget(Metric.LATENCY, 0.1, quantile=0.9), Budget(Metric.EFFICIENCY, 0.3)]
    judge_observation(budgets, seen_of(LAYER, X), timing(timer))
    assert timer.asked == [0.5, 0.9, 0.5]


def test_the_model_is_left_as_it_was(machine: FakeRoofline) -> None:
    """A training step leaves no gradient, and no random number is drawn."""
    layer, x = nn.Sequential(nn.Linear(8, 8), nn.Dropout()), torch.rand(4, 8)
    workload = Workload(layer, (x,), phase="training")
    seen, before = observe(workload, runs=True), torch.random.get_rng_state()
    timer = Timer(0.04, 0.05, 0.08)
    found = measure(Metric.EFFICIENCY, seen, phase="training", effort=timing(timer))
    assert found.value is not None
    assert all(p.grad is None for p in layer.parameters())
    assert torch.equal(torch.random.get_rng_state(), before)
