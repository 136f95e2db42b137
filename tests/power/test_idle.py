"""Idle power: what a machine draws that does nothing, or that it is not known."""

from __future__ import annotations

import pytest

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.power.counter import FakeCounter
from pytest_nnscale.power.idle import Idle, idle_watts
from pytest_nnscale.power.watch import Watch
from pytest_nnscale.timing.clock import FakeClock


def idle(period_s: float, for_s: float, power_w: float = 30.0) -> tuple[Idle | None, Watch]:
    clock = FakeClock([])

    def pause(seconds: float) -> None:
        clock.time_s += seconds

    watch = Watch(FakeCounter(power_w, clock.now_s, 1e-6, resolution_s=period_s))
    found = idle_watts([watch], for_s=for_s, every_s=0.005, now_s=clock.now_s, pause=pause)
    return found, watch


@pytest.mark.parametrize("period_s", [0.001, 0.02, 0.1])
def test_the_power_is_that_of_the_pause(period_s: float) -> None:
    """Within what is not known of two updates."""
    found, watch = idle(period_s, 0.5)
    assert found is not None
    assert found.watts == pytest.approx(30.0, rel=0.03)
    assert abs(found.watts - 30.0) <= found.unsure_w <= 3.0
    assert watch.updates == []  # what comes is another window


def test_with_one_update_it_is_not_known() -> None:
    """It takes two of them."""
    assert idle(0.3, 0.4)[0] is None


def test_a_counter_that_is_lost_says_so() -> None:
    """It is no idle power of zero."""

    class Lost(FakeCounter):
        def read_j(self) -> float:
            raise CannotMeasure("GPU is lost")

    with pytest.raises(CannotMeasure, match="GPU is lost"):
        idle_watts(
            [Watch(Lost(1.0, lambda: 0.0))], for_s=1, every_s=0.1, now_s=lambda: 0.0, pause=print
        )
