"""A watch: the updates of a counter, and how much of a call was over when each came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
