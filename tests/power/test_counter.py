"""The counter for tests."""

from __future__ import annotations

from pytest_nnscale.power.counter import FakeCounter


def test_the_fake_counter_is_its_power_over_time_in_full_steps() -> None:
    """It never runs ahead of the energy, and less than a step behind."""
    times = iter([0.0, 0.04, 0.05, 0.06, 1.0])
    counter = FakeCounter(20.0, lambda: next(times), resolution_j=1.0)
    assert [counter.read_j() for _ in range(5)] == [0.0, 0.0, 1.0, 1.0, 20.0]


def test_the_fake_counter_moves_only_when_it_is_updated() -> None:
    """As it was at the last update."""
    times = iter([0.09, 0.1, 0.19, 0.2])
    counter = FakeCounter(20.0, lambda: next(times), resolution_s=0.1)
    assert [round(counter.read_j(), 3) for _ in range(4)] == [0.0, 2.0, 2.0, 4.0]


def test_a_power_may_be_the_energy_up_to_a_time() -> None:
    """For a power that changes."""
    assert FakeCounter(lambda time_s: time_s**2, lambda: 3.0).read_j() == 9.0
