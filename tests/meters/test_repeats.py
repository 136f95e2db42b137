"""What is sampled, and what is not: a call that computes nothing keeps any budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from pytest_nnscale.budget import Phase
from pytest_nnscale.called import observe_call
from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters.effort import Effort
from pytest_nnscale.meters.repeats import sampled
from pytest_nnscale.meters.table import measure
from pytest_nnscale.observation import Observation
from pytest_nnscale.observing import observe
from pytest_nnscale.workload import Workload

X = torch.ones(2, 4)
ONE = Measurement(Metric.RATIO, 1.0, 1.0, 1.0)


def seen_of(call: Callable[..., Any], *args: Any) -> Observation:
    return observe_call(Workload(call, args))[1]


def take(_repeat: Callable[[], object]) -> Measurement:
    return ONE


def sample(
    seen: Observation, *, phase: Phase = "inference", beside: Observation | None = None
) -> Measurement:
    return sampled(Metric.RATIO, seen, phase, Effort(), take, beside=beside)


def on_devices(*devices: str) -> Observation:
    seen = seen_of(nn.Linear(4, 4), X)
    assert seen.count is not None
    return replace(seen, device=devices[0], count=seen.count._replace(devices=devices))


LINEAR = seen_of(nn.Linear(4, 4), X)
ON_META = seen_of(nn.Linear(4, 4, device="meta"), X.to("meta"))
TRAINS = seen_of(lambda: nn.Linear(4, 4)(X).sum().backward())
NOTHING = seen_of(lambda: None)
GONE = Observation("gone", reason="it cannot run twice", remedy="use the fixture")


@pytest.mark.parametrize(
    ("seen", "phase", "reason"),
    [
        (ON_META, "inference", "on the meta device"),
        (NOTHING, "inference", "ran no tensor operator"),
        (TRAINS, "inference", "runs a backward pass"),
        (LINEAR, "training", "runs no backward pass"),
        (GONE, "inference", "cannot run twice"),
        (on_devices("cuda:0", "mps:0"), "inference", "runs on cuda and mps"),
    ],
)
def test_what_tells_no_time_is_not_sampled(seen: Observation, phase: Phase, reason: str) -> None:
    """It would take none, or that of something else."""
    found = sample(seen, phase=phase)
    assert found.value is None
    assert reason in found.reason
    assert found.remedy


@pytest.mark.parametrize(
    ("beside", "reason"),
    [
        (ON_META, "is no reference: the model is on the meta device"),
        (TRAINS, "is no reference: phase='inference', but what would be repeated runs a backward"),
        (GONE, "cannot run twice"),
        (on_devices("cuda:0"), "Linear runs on cpu and Linear on cuda:0"),
    ],
)
def test_what_stands_beside_has_to_tell_the_same_time(beside: Observation, reason: str) -> None:
    """On the same clock."""
    found = sample(LINEAR, beside=beside)
    assert found.value is None
    assert reason in found.reason


@pytest.mark.parametrize("beside", [None, LINEAR, NOTHING])
def test_what_tells_the_time_is_sampled(beside: Observation | None) -> None:
    """A reference may be of another library, which runs none of our operators."""
    assert sample(LINEAR, beside=beside).value == 1


@pytest.mark.parametrize("devices", [("cuda:0", "cpu"), ("cuda:0", "cuda:1")])
def test_others_are_held_off_where_it_ran(devices: tuple[str, ...]) -> None:
    """Several GPUs are one kind of device, and their clock waits for all."""
    asked: list[str] = []

    def quiet(device: str) -> AbstractContextManager[None]:
        asked.append(device)
        return still()

    sampled(Metric.RATIO, on_devices(*devices), "inference", Effort(quiet=quiet), take)
    assert asked == ["cuda:0"]


@contextmanager
def still() -> Iterator[None]:
    yield


def test_what_could_not_be_held_off_is_no_measurement() -> None:
    """Not even where it was found out afterwards."""

    @contextmanager
    def disturbed(_device: str) -> Iterator[None]:
        yield
        raise CannotMeasure("a test went on", remedy="wait longer")

    found = sampled(Metric.RATIO, LINEAR, "inference", Effort(quiet=disturbed), take)
    assert (found.value, found.reason, found.remedy) == (None, "a test went on", "wait longer")


def test_the_grad_mode_is_entered_once_and_not_by_each_repeat() -> None:
    """Entering it takes time, which would be timed with the call."""
    modes: list[bool] = []

    def call(x: torch.Tensor) -> torch.Tensor:
        modes.append(torch.is_grad_enabled())
        return x + 1

    seen = observe(Workload(call, (X,)), runs=True)
    assert seen.repeat is not None
    with seen.guard():
        del modes[:]
        seen.repeat()
        assert modes == [False]
    del modes[:]
    seen.repeat()
    assert modes == [True]
    assert torch.is_grad_enabled()


def test_what_is_to_be_said_of_times_is_said_of_each() -> None:
    """And of nothing that could not be measured."""
    noted = replace(LINEAR, time_notes=("the whole body",))
    assert sample(noted).notes == ("the whole body",)
    assert sample(replace(NOTHING, time_notes=("the whole body",))).notes == ()


def test_what_a_repeat_takes_beside_the_call_is_said() -> None:
    """Where it is more than a thousandth."""
    latency = Measurement(Metric.LATENCY, 1e-3, 1e-3, 1e-3)

    def slow() -> None:
        torch.ones(300, 300) @ torch.ones(300, 300)

    for empty, told in ((slow, 1), (None, 0)):
        seen = replace(LINEAR, empty=empty)
        found = sampled(Metric.LATENCY, seen, "inference", Effort(), lambda _repeat: latency)
        assert len(found.notes) == told, found.notes
        assert not told or "of it is pytest" in found.notes[0]


@pytest.mark.parametrize(("metric", "held"), [(Metric.ENERGY, "cpu"), (Metric.LATENCY, "cuda:0")])
def test_of_energy_one_measurement_goes_on_at_a_time(metric: Metric, held: str) -> None:
    """Whatever the device: all of them draw from one plug."""
    asked: list[str] = []

    def quiet(device: str) -> AbstractContextManager[None]:
        asked.append(device)
        return still()

    found = Measurement(metric, 1.0, 1.0, 1.0)
    sampled(metric, on_devices("cuda:0"), "inference", Effort(quiet=quiet), lambda _repeat: found)
    assert asked == [held]


def test_joules_of_two_gpus_are_not_those_of_one() -> None:
    """The first one's counter would be half of them, and pass."""
    found = measure(Metric.ENERGY, on_devices("cuda:0", "cuda:1", "cpu"))
    assert found.unmeasured
    assert found.reason == (
        "the call runs on cuda:0 and cuda:1, and joules are counted of one device"
    )
    assert found.missing == ""
