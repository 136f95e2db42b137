"""Patience: how long one waits, by a clock that is told."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_nnscale.timing.hold import ALONE, TEST, Hold
from pytest_nnscale.timing.patience import Patience

A, B = Hold.new(TEST, "a"), Hold.new(TEST, "b")


class World:
    """A clock, what the others have computed by it, and what was told."""

    def __init__(self, busy_share: float | None = 1.0) -> None:
        self.now_s = 0.0
        self.busy_share = busy_share
        self.told: list[str] = []

    def patience(self, max_wait_s: float = 100.0, **more: Any) -> Patience:
        return Patience(
            max_wait_s,
            **{"outlasted": set(), **more},
            tell=self.told.append,
            clock=lambda: self.now_s,
            sleep=self.sleep,
            cpu_s=self.cpu_s,
        )

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def cpu_s(self, pid: int) -> float | None:
        return None if self.busy_share is None else self.busy_share * self.now_s


def wait(patience: Patience, world: World, until: dict[float, list[Hold]]) -> None:
    """Wait while others are there, each list until its time."""
    for _ in patience.pauses():
        there = [holds for until_s, holds in until.items() if world.now_s < until_s]
        patience.look(there[0] if there else [])
        if not there:
            break


def test_it_ends_in_time() -> None:
    """Where nobody ends."""
    world = World()
    patience = world.patience()
    wait(patience, world, {1e9: [A]})
    assert world.now_s == pytest.approx(100)
    assert patience.waited_s == 100


def test_it_starts_anew_when_one_ends() -> None:
    """A wait behind others that measure in turn is no hang."""
    world = World()
    wait(world.patience(), world, {90: [A, B], 1e9: [B]})
    assert world.now_s == pytest.approx(190, abs=0.2)


def test_that_has_an_end() -> None:
    """However many come and go."""
    world = World()
    others = {50.0 * n: [Hold.new(TEST, str(n))] for n in range(1, 100)}
    wait(world.patience(), world, others)
    assert world.now_s == pytest.approx(300)


def test_more_that_come_give_no_more_time() -> None:
    """Only those that end do."""
    world = World()
    wait(world.patience(), world, {90: [A], 1e9: [A, B]})
    assert world.now_s == pytest.approx(100)


def test_what_outlasted_a_wait_is_not_waited_for() -> None:
    """It is looked at once."""
    outlasted: set[str] = set()
    world = World()
    first = world.patience(outlasted=outlasted)
    wait(first, world, {1e9: [A]})
    first.close([A])
    begun_s = world.now_s
    second = world.patience(outlasted=outlasted)
    wait(second, world, {1e9: [B, A]})
    assert second.in_vain
    assert world.now_s - begun_s < 0.1
    third = world.patience(outlasted=outlasted)
    wait(third, world, {1e9: [B]})
    assert not third.in_vain


@pytest.mark.parametrize(
    ("share", "kind", "suspects", "idle"),
    [
        (0.005, TEST, True, True),  # it polls for a file lock
        (0.0, TEST, True, True),
        (0.05, TEST, True, False),
        (None, TEST, True, False),
        (0.0, ALONE, True, False),  # a GPU may work for it
        (0.0, TEST, False, False),
    ],
)
def test_a_test_that_computes_nothing_is_suspected(
    share: float | None, kind: str, suspects: bool, idle: bool
) -> None:
    """It may wait for a lock that is held here: waiting for it would be a deadlock."""
    world = World(share)
    patience = world.patience(suspects=suspects)
    hold = Hold.new(kind, "a")
    wait(patience, world, {1e9: [hold]})
    assert patience.idle == (hold if idle else None)
    assert world.now_s == pytest.approx(32 if idle else 100, abs=0.3)


def test_a_test_that_falls_idle_later_is_suspected_too() -> None:
    """What it has computed before says nothing."""
    world = World()
    world.cpu_s = lambda pid: min(world.now_s, 20.0)  # type: ignore[method-assign]
    patience = world.patience(suspects=True)
    wait(patience, world, {1e9: [A]})
    assert patience.idle == A
    assert world.now_s == pytest.approx(62, abs=0.5)


def test_only_a_long_wait_is_told() -> None:
    """Once for each that it is for, and its end."""
    world = World()
    short = world.patience()
    wait(short, world, {1.9: [A]})
    short.close()
    assert world.told == []
    long = world.patience()
    wait(long, world, {10: [A, B], 20: [B]})
    long.close()
    assert world.told == [f"waiting for {A}", f"waiting for {B}", ""]
    assert long.first == str(A)


def test_looking_is_done_now_and_then() -> None:
    """A look disturbs whoever measures."""
    world = World()
    patience = world.patience()
    looks = 0
    for _ in patience.pauses():
        if patience.due:
            looks += 1
            patience.look([A])
    assert 90 < looks <= 101
