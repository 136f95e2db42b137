"""The estimate: CPU time times stated watts, and that it never passes for a measurement."""

from __future__ import annotations

import time

import pytest

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.power.estimate import EstimatedCounter, estimate


def test_it_is_cpu_time_times_the_power_of_a_core() -> None:
    """Two seconds of CPU at 8 W."""
    seconds = iter([1.0, 3.0])
    counter = EstimatedCounter(8.0, cpu_s=lambda: next(seconds))
    assert (counter.read_j(), counter.read_j()) == (8.0, 24.0)
    with counter.running():
        pass


def test_it_calls_itself_an_estimate() -> None:
    """By name, by flag and by note."""
    (counter,) = estimate(8.0)
    assert counter.estimated
    assert counter.name == "estimate: CPU time x 8 W a core"
    assert counter.notes[0].startswith("an estimate, no measurement")
    assert counter.device == "cpu"
    assert 0 < counter.resolution_j < 1e-3


def test_the_time_is_that_of_this_process() -> None:
    """It moves with work."""
    (counter,) = estimate(100.0)
    before_j, begun_s = counter.read_j(), time.process_time()
    while time.process_time() < begun_s + 0.01:
        pass
    assert 1.0 <= counter.read_j() - before_j < 100.0


def test_nothing_is_assumed_that_was_not_stated() -> None:
    """No TDP out of a table."""
    with pytest.raises(CannotMeasure) as caught:
        estimate(None)
    assert caught.value.remedy == "state it: nnscale_watts_per_core=8"
