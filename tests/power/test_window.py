"""A window: joules a call between two updates, and an interval that holds the truth."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_nnscale.power.counter import FakeCounter
from pytest_nnscale.power.watch import Update, Watch
from pytest_nnscale.power.window import FEWEST_PIECES, watts_of, window_of


def fed(updates: list[Update], step_j: float = 0.0) -> Watch:
    """Return a watch that has seen these updates."""
    watch = Watch(FakeCounter(1.0, lambda: 0.0, step_j))
    watch.updates = updates
    return watch


def sharp(joules: float, at_s: float, calls: float) -> Update:
    """Return an update whose moment is known."""
    return Update(joules, at_s, at_s, calls, calls)


def even(count: int, *, watts: float = 50.0, call_s: float = 0.01) -> list[Update]:
    return [sharp(watts * n * 0.1, n * 0.1, n * 0.1 / call_s) for n in range(count)]


def test_joules_a_call_are_watts_times_seconds() -> None:
    """With no doubt where nothing differs and both ends are known."""
    window = window_of([fed(even(41))], error=0.01)
    assert window is not None
    assert window.joules == pytest.approx(0.5)
    assert window.half_j == pytest.approx(0, abs=1e-9)
    assert (window.watts, window.calls, window.seconds) == pytest.approx((50, 400, 4.0))
    assert window.pieces == pytest.approx([0.5] * 10)


def test_counters_add_up() -> None:
    """Each over its own updates, which come at other moments."""
    late = [sharp(20.0 * n * 0.13, n * 0.13, n * 13) for n in range(31)]
    window = window_of([fed(even(41)), fed(late)], error=0.01)
    assert window is not None
    assert window.joules == pytest.approx(0.5 + 0.2)
    assert window.watts == pytest.approx(70)


@pytest.mark.parametrize("count", range(FEWEST_PIECES + 1))
def test_too_few_updates_tell_nothing(count: int) -> None:
    """Of one counter is enough to say nothing of all."""
    assert window_of([fed(even(41)), fed(even(count))], error=0.01) is None


def test_the_fewest_updates_tell_something() -> None:
    """As many pieces as an interval takes."""
    window = window_of([fed(even(FEWEST_PIECES + 1))], error=0.01)
    assert window is not None
    assert len(window.pieces) == FEWEST_PIECES


def test_calls_under_way_at_both_ends_widen_the_interval() -> None:
    """By what they are of all calls."""
    updates = even(41)
    updates[0] = Update(0.0, -0.01, 0.01, -1, 1)
    updates[-1] = Update(updates[-1].joules, 3.99, 4.01, 399, 401)
    window = window_of([fed(updates)], error=0.01)
    assert window is not None
    assert window.quantised_j == pytest.approx(0.5 * (400 / 398 - 1))
    assert window.half_j >= window.quantised_j


def test_a_step_of_the_counter_widens_the_interval() -> None:
    """One step of all that was gained."""
    window = window_of([fed(even(41), step_j=2.0)], error=0.01)
    assert window is not None
    assert window.quantised_j == pytest.approx(2.0 / 400)


def test_parts_of_one_call_tell_nothing() -> None:
    """No whole call was made between two updates."""
    updates = [Update(n * 1.0, n * 0.1 - 0.05, n * 0.1 + 0.05, 0, 1) for n in range(6)]
    assert window_of([fed(updates)], error=0.01) is None


def test_an_end_that_may_be_all_of_it_has_no_upper_end() -> None:
    """As many calls are unsure as were made."""
    updates = even(6, call_s=0.1)
    updates[0] = Update(0.0, -0.3, 0.3, -3, 3)
    updates[-1] = Update(updates[-1].joules, 0.2, 0.8, 2, 8)
    window = window_of([fed(updates)], error=0.01)
    assert window is not None
    assert window.half_j == math.inf


def test_the_interval_holds_the_mean_of_noisy_pieces() -> None:
    """In at least 99 of 100, by a power that differs by a tenth from one tenth of a second to the next."""
    chance, held = random.Random(1), 0
    for _ in range(3000):
        joules, updates = 0.0, [sharp(0.0, 0.0, 0.0)]
        for n in range(1, 41):
            joules += chance.gauss(50.0, 5.0) * 0.1
            updates.append(sharp(joules, n * 0.1, n * 10.0))
        window = window_of([fed(updates)], error=0.01)
        assert window is not None
        held += abs(window.joules - 0.5) <= window.half_j
    assert held >= 2958


@given(st.lists(st.floats(0.01, 1.0), min_size=5, max_size=60), st.integers(5, 60))
def test_pieces_never_share_an_update(gaps_s: list[float], count: int) -> None:
    """Each has some time of its own, whenever updates come: none is infinite."""
    times = [sum(gaps_s[: n + 1]) for n in range(len(gaps_s))]
    updates = [sharp(10 * at_s, at_s, at_s * 7) for at_s in times][:count]
    window = window_of([fed(updates)], error=0.01)
    assert window is not None
    assert window.pieces == pytest.approx([10 / 7] * len(window.pieces))


def test_watts_take_two_updates() -> None:
    """Of each counter."""
    assert watts_of([fed(even(2)), fed(even(3, watts=7.0))]) == pytest.approx(57.0)
    assert watts_of([fed(even(2)), fed(even(1))]) is None
