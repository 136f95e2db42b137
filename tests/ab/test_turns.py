"""Turns: alternating, never at once, in batches that a clock can tell, and fair to both sides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from pytest_nnscale.ab.turns import Turns, take_turns
from pytest_nnscale.errors import CannotMeasure


@dataclass(eq=False)
class Machine:
    """A fake of both sides: time passes in calls alone, by what each call takes at that time."""

    base: Callable[[float], float]
    head: Callable[[float], float]
    now_s: float = 0.0
    log: list[tuple[str, int, int]] = field(default_factory=list)

    def turns(self, *, time_s: float = 1.5, head_first: bool = False) -> Turns:
        sides = FakeSide(self, "base", self.base), FakeSide(self, "head", self.head)
        return take_turns(*sides, time_s=time_s, head_first=head_first)

    @property
    def timed(self) -> list[tuple[str, int, int]]:
        """What was asked for after the warm-up, in which each is asked for single calls."""
        asked = [entry for entry in self.log if entry[1:] != (1, 1)]
        return asked or self.log[6:]


@dataclass(eq=False)
class FakeSide:
    machine: Machine
    name: str
    call_s: Callable[[float], float]

    def take(self, samples: int, *, calls: int) -> Sequence[float]:
        self.machine.log.append((self.name, samples, calls))
        seconds = []
        for _ in range(samples):
            each = self.call_s(self.machine.now_s)
            self.machine.now_s += calls * each
            seconds.append(each)
        return seconds


def steady(seconds: float) -> Callable[[float], float]:
    return lambda _now_s: seconds


@pytest.mark.parametrize("head_first", [False, True])
def test_the_order_alternates(head_first: bool) -> None:
    """AB BA AB BA, or the other way round, and whole blocks of both."""
    machine = Machine(steady(0.005), steady(0.005))
    machine.turns(head_first=head_first)
    order = "".join(name[0] for name, *_ in machine.timed)
    block = "hbbh" if head_first else "bhhb"
    assert order == block * (len(order) // 4)
    assert len(order) >= 20


def test_the_ratio_is_heads_by_bases() -> None:
    """With the medians of both beside it."""
    turns = Machine(steady(0.004), steady(0.005)).turns()
    assert math.exp(turns.log_ratio) == pytest.approx(1.25)
    assert (turns.base_s, turns.head_s) == (0.004, 0.005)


@pytest.mark.parametrize(
    ("call_s", "dropped", "kept", "calls"),
    [
        (40e-6, 20, 40, 25),
        (1e-6, 20, 40, 1000),
        (0.9e-3, 12, 22, 2),
        (5e-3, 4, 8, 1),
        (20e-3, 1, 2, 1),
        (50e-3, 1, 1, 1),
        (99e-3, 1, 1, 1),
        (100e-3, 0, 1, 1),
    ],
)
def test_a_turn_is_some_samples_of_a_millisecond_at_least(
    call_s: float, dropped: int, kept: int, calls: int
) -> None:
    """Short calls in batches, of which those of the first 20 ms do not count."""
    machine = Machine(steady(call_s), steady(call_s))
    machine.turns()
    assert {entry[1:] for entry in machine.timed} == {(dropped + kept, calls)}


def test_both_sides_make_batches_of_equal_size() -> None:
    """Enough calls for the faster side."""
    machine = Machine(steady(100e-6), steady(400e-6))
    machine.turns()
    assert {calls for _, _, calls in machine.timed} == {10}


@pytest.mark.parametrize("head_s", [0.002, 0.01, 0.04])
def test_the_first_20_ms_of_a_turn_do_not_count(head_s: float) -> None:
    """The other side has had the caches; each side by its own time, however fast the other is."""

    class Cold(FakeSide):
        def take(self, samples: int, *, calls: int) -> Sequence[float]:
            seconds, begun_s = [], self.machine.now_s
            for _ in range(samples):
                cold = samples > 1 and self.machine.now_s < begun_s + 0.0199
                seconds.append(self.call_s(0.0) * (2 if cold else 1))
                self.machine.now_s += calls * self.call_s(0.0)
            self.machine.log.append((self.name, samples, calls))
            return seconds

    machine = Machine(steady(0.002), steady(head_s))
    sides = Cold(machine, "base", machine.base), Cold(machine, "head", machine.head)
    turns = take_turns(*sides, time_s=0.5)
    assert (set(turns.base), set(turns.head)) == ({0.002}, {head_s})


def test_time_is_spent_and_hardly_more() -> None:
    """The warm-up is part of it."""
    machine = Machine(steady(0.005), steady(0.005))
    machine.turns(time_s=1.5)
    assert 1.5 <= machine.now_s < 1.5 + 4 * 12 * 0.005


@pytest.mark.parametrize(
    ("call_s", "blocks"), [(0.05, 6), (0.08, 5), (0.2, 4), (0.4, 2), (1.0, 1), (5e-3, 7)]
)
def test_calls_that_are_long_get_twice_the_time_for_six_blocks(call_s: float, blocks: int) -> None:
    """And no more than that, but for the block that is under way."""
    machine = Machine(steady(call_s), steady(call_s))
    turns = machine.turns(time_s=1.5)
    assert len(turns.base) == 2 * blocks
    assert machine.now_s < 3.0 + 4 * call_s + 0.3


def test_a_burst_among_six_blocks_is_not_seen() -> None:
    """One of two fifths of a second, in which calls of 50 ms take half as long again."""

    def disturbed(now_s: float) -> float:
        return 0.075 if 0.9 < now_s < 1.3 else 0.05

    assert abs(Machine(disturbed, disturbed).turns(time_s=1.5).log_ratio) < 1e-9


def test_the_longest_call_is_timed_in_one_block() -> None:
    """Two rounds, whatever they take, after a call of each to warm up."""
    machine = Machine(steady(100.0), steady(110.0))
    turns = machine.turns()
    assert turns == ((100.0,) * 2, (110.0,) * 2)
    assert len(machine.log) == 6


def test_an_even_drift_favours_neither_side() -> None:
    """A machine that slows down by a tenth in each second, and code that is the same."""

    def slowing(now_s: float) -> float:
        return 0.01 * math.exp(0.1 * now_s)

    machine = Machine(slowing, slowing)
    assert abs(machine.turns(time_s=3).log_ratio) < 1e-4


def test_whoever_goes_first_is_not_favoured() -> None:
    """Each round's first turn is slower by a fifth here; a block has one of each order."""

    class Heated(FakeSide):
        def take(self, samples: int, *, calls: int) -> Sequence[float]:
            first = len(self.machine.log) % 2 == 0
            return [each * (1.2 if first else 1.0) for each in super().take(samples, calls=calls)]

    machine = Machine(steady(0.02), steady(0.02))
    base, head = Heated(machine, "base", steady(0.02)), Heated(machine, "head", steady(0.02))
    assert take_turns(base, head, time_s=1).log_ratio == pytest.approx(0)


def test_a_burst_moves_the_ratio_of_few_blocks() -> None:
    """Something else comes in now and then: the median does not see it."""

    def disturbed(now_s: float) -> float:
        return 0.03 if now_s % 0.33 > 0.3 else 0.01

    assert abs(Machine(disturbed, disturbed).turns().log_ratio) < 1e-9


def test_a_block_is_two_rounds() -> None:
    """The median is over blocks: of 0.1, 0 and 0.3 here, not of their six rounds."""
    logs = [0.5, -0.3, 0.0, 0.0, 0.3, 0.3]
    turns = Turns((1.0,) * 6, tuple(map(math.exp, logs)))
    assert turns.log_ratio == pytest.approx(0.1)


def test_calls_that_warm_up_do_not_count() -> None:
    """Until the last three of each side agree within a tenth."""

    first = [0.08, 0.04, 0.02, 0.015]

    def warming(_now_s: float) -> float:
        return first.pop(0) if first else 0.01

    turns = Machine(warming, steady(0.01)).turns()
    assert set(turns.base) == {0.01}


def test_a_call_that_never_settles_is_timed_all_the_same() -> None:
    """A fifth of the time is all that it may take to warm up."""
    asked = [0]

    def restless(_now_s: float) -> float:
        asked[0] += 1
        return 0.01 * (1 + asked[0] % 3)

    machine = Machine(restless, restless)
    turns = machine.turns(time_s=2.0)
    assert len(turns.base) >= 4


def test_what_a_side_raises_passes_through() -> None:
    """It is its own word for why it cannot be timed."""

    def broken(_now_s: float) -> float:
        raise CannotMeasure("head: no")

    with pytest.raises(CannotMeasure, match="head: no"):
        Machine(steady(0.1), broken).turns()
