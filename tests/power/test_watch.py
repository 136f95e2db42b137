"""A watch: the updates of a counter, and how much of a call was over when each came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.power.counter import FakeCounter
from pytest_nnscale.power.watch import Watch


class Wall:
    """A clock that tests set."""

    now = 0.0

    def now_s(self) -> float:
        return self.now


def watched(period_s: float, looks_s: list[float], call_s: float) -> Watch:
    """Look at a counter of 100 W at some times, while calls follow each other."""
    wall = Wall()
    watch = Watch(FakeCounter(100.0, wall.now_s, 1e-9, resolution_s=period_s))
    for at_s in looks_s:
        wall.now = at_s
        watch.look(at_s, at_s / call_s)
    return watch


def test_the_first_look_sees_no_update() -> None:
    """Whenever the last one was, it was before."""
    assert watched(0.1, [5.0], 0.01).updates == []


def test_a_counter_that_stands_still_was_not_updated() -> None:
    """Several looks between two updates see none."""
    assert watched(0.1, [0.01, 0.05, 0.09], 0.01).updates == []


def test_an_update_came_between_two_looks() -> None:
    """After the look that did not see it, and before the one that did."""
    (update,) = watched(0.1, [0.08, 0.12], 0.01).updates
    assert (update.early_s, update.late_s) == pytest.approx((0.08, 0.12))
    assert (update.early_calls, update.late_calls) == pytest.approx((8, 12))
    assert (update.at_s, update.calls, update.unsure_calls) == pytest.approx((0.1, 10, 2))
    assert update.joules == pytest.approx(10.0)


def test_the_last_of_several_updates_is_no_older_than_one_period() -> None:
    """Looks may be further apart than updates: a call of a second, ten updates within it."""
    (update,) = watched(0.1, [1.0, 2.05], 1.0).updates
    assert (update.early_s, update.late_s) == pytest.approx((1.95, 2.05))
    assert update.unsure_calls == pytest.approx(0.05)


def test_a_counter_that_is_slower_than_it_states_is_not_believed() -> None:
    """It stood still for 15 ms and states 1 ms: an update is as old as the look before at most."""
    wall = Wall()
    counter = FakeCounter(100.0, wall.now_s, 1e-9, resolution_s=0.02)
    watch = Watch(counter)
    for at_s in (0.001, 0.006, 0.011, 0.016, 0.021, 0.026, 0.031, 0.036, 0.046):
        wall.now = at_s
        joules = counter.read_j()
        watch.counter = FakeCounter(lambda _s, j=joules: j, wall.now_s, 1e-9, resolution_s=1e-3)
        watch.counter.resolution_s = 0.0
        watch.look(at_s, at_s / 0.01)
    assert [(u.early_s, u.late_s) for u in watch.updates] == [
        pytest.approx((0.016, 0.021)),
        pytest.approx((0.036, 0.046)),
    ]


def test_a_counter_that_stops_in_the_middle_is_no_measurement() -> None:
    """What came after is in no number: a second of five would pass for all of them."""
    wall = Wall()
    watch = Watch(FakeCounter(lambda s: 100.0 * min(s, 1.0), wall.now_s, 1e-9))
    for n in range(1, 200):
        wall.now = n * 0.01
        watch.look(wall.now, n)
        if n < 105:
            watch.check_that_it_moves(0.01)
    with pytest.raises(
        CannotMeasure, match=r"fake stopped: it moved every 0\.01 s, and not at all"
    ):
        watch.check_that_it_moves(0.01)
    watch.check_that_it_moves(0.5)  # two calls: nothing is known of so few


def test_a_counter_that_breaks_is_told_apart_from_the_call() -> None:
    """Its own mistake is none of the model's."""

    def broken(_s: float) -> float:
        raise TypeError("no number")

    watch = Watch(FakeCounter(broken, Wall().now_s))
    with pytest.raises(CannotMeasure, match="fake cannot be read: TypeError: no number"):
        watch.look(0.0, 0)


def test_a_new_window_forgets_the_old_one() -> None:
    """Also the look that would tell an update at once."""
    watch = watched(0.1, [0.08, 0.12], 0.01)
    watch.begin_anew()
    watch.look(0.35, 0)
    assert watch.updates == []


@given(
    st.floats(0.001, 0.3),
    st.lists(st.floats(0.0005, 0.4), min_size=3, max_size=50),
    st.floats(1e-3, 1),
)
def test_every_update_lies_between_its_ends(
    period_s: float, gaps_s: list[float], call_s: float
) -> None:
    """However looks and updates fall, the joules are those of a moment within."""
    looks_s = [sum(gaps_s[: n + 1]) for n in range(len(gaps_s))]
    for update in watched(period_s, looks_s, call_s).updates:
        at_s = update.joules / 100.0
        assert update.early_s - 1e-6 <= at_s <= update.late_s + 1e-6
        assert update.early_calls <= update.calls <= update.late_calls
