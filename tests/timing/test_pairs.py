"""Two calls in turns: their ratio, whatever the machine does to both."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable

import pytest
import torch

from pytest_nnscale.meters.ratio import measure_ratio
from pytest_nnscale.timing.clock import FakeClock
from pytest_nnscale.timing.cuda import CudaClock
from pytest_nnscale.timing.events import FakeDriver
from pytest_nnscale.timing.pairs import Ratios, sample_ratio
from pytest_nnscale.timing.sampling import time_for


class Machine:
    """A clock and two calls on it, the new one `factor` times as long; noise and drift are of both."""

    def __init__(
        self,
        old_s: float,
        factor: float,
        *,
        noise: float = 0.02,
        drift: Callable[[float], float] = lambda _now_s: 1.0,
    ) -> None:
        self._r = random.Random(5)
        self._noise, self._drift = noise, drift
        self.clock = FakeClock(iter(()))
        self.order: list[str] = []
        self._old_s, self._new_s = old_s, factor * old_s

    def _take(self, seconds: float) -> None:
        noise = self._r.uniform(1 - self._noise, 1 + self._noise)
        self.clock.time_s += seconds * noise * self._drift(self.clock.time_s)

    def new(self) -> None:
        self.order.append("new")
        self._take(self._new_s)

    def old(self) -> None:
        self.order.append("old")
        self._take(self._old_s)

    def sampled(self, *, max_time_s: float = 5.0, limit: float | None = None) -> Ratios:
        return sample_ratio(
            self.new, self.old, clock=self.clock, max_time_s=max_time_s, limit=limit
        )


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.1, 3.0])
def test_the_ratio_is_found(factor: float) -> None:
    """Within a hundredth, where nothing else is asked."""
    taken = Machine(0.005, factor).sampled()
    assert taken.interval is not None
    assert taken.interval.lower <= factor <= taken.interval.upper
    assert taken.interval.upper - taken.interval.lower <= 0.02 * factor * 1.02


@pytest.mark.parametrize(
    "drift",
    [
        lambda now_s: 1 + now_s,
        lambda now_s: 2.0 if now_s > 0.2 else 1.0,
        lambda now_s: 1.5 if int(now_s * 10) % 2 else 1.0,
    ],
    ids=["slower and slower", "a step", "there and back"],
)
def test_a_drift_of_the_machine_is_none_of_the_ratio(drift: Callable[[float], float]) -> None:
    """Both are called one right after the other."""
    taken = Machine(0.002, 1.1, drift=drift).sampled(limit=1.05)
    assert taken.interval is not None
    assert 1.05 < taken.interval.lower <= 1.1 <= taken.interval.upper


def test_in_every_second_turn_the_other_goes_first() -> None:
    """Whoever goes first may find other caches, and a drift is no advantage."""
    machine = Machine(0.01, 1.0)
    turns = len(machine.sampled(limit=2.0).ratios)
    timed = machine.order[-2 * turns :]
    firsts = timed[::2]
    assert [*itertools.islice(firsts, 4)] in (["new", "old", "new", "old"], ["old", "new"] * 2)
    assert timed.count("new") == timed.count("old") == turns


@pytest.mark.parametrize(("limit", "most"), [(2.0, 12), (1.2, 40)])
def test_a_limit_far_away_takes_few_turns(limit: float, most: int) -> None:
    """Only a close one costs time."""
    assert len(Machine(0.005, 1.0).sampled(limit=limit).ratios) <= most


def test_what_decides_against_a_call_is_spread_over_half_a_second() -> None:
    """Twelve turns of a tenth of a second may lie in a moment that is worse for one of them."""
    taken = Machine(0.001, 1.5).sampled(limit=1.1)
    assert taken.interval is not None
    assert taken.interval.lower > 1.1
    assert 0.5 <= taken.spent_s < 0.6


def test_the_turns_of_a_look_are_asked_for_in_one_queue() -> None:
    """So that no side of a turn finds the GPU idle, and is measured with its launch."""
    driver = FakeDriver(launch_s=20e-6)

    def lasting(kernels: int) -> Callable[[], None]:
        def call() -> None:
            for _ in range(kernels):
                driver.launch(100e-6)

        return call

    taken = sample_ratio(
        lasting(20), lasting(10), clock=CudaClock(driver=driver), max_time_s=5.0, limit=3.0
    )
    assert taken.new_calls == taken.old_calls == 1
    assert taken.ratios == pytest.approx([2.0] * 12, rel=1e-4)


@pytest.mark.parametrize("cold_s", [3.0, 30.0])
def test_a_reference_that_compiles_at_first_has_a_ratio(cold_s: float) -> None:
    """Its first call tells nothing of the others."""
    machine, cold = Machine(0.005, 1.0), iter([cold_s])

    def compiled() -> None:
        machine.clock.time_s += next(cold, 0.0)
        machine.old()

    taken = sample_ratio(machine.new, compiled, clock=machine.clock, max_time_s=5.0, limit=1.5)
    assert taken.interval is not None
    assert taken.interval.upper < 1.5


@pytest.mark.parametrize("denormal", ["new", "old", "neither"])
def test_denormal_numbers_of_either_call_are_noticed(denormal: str) -> None:
    """The ratio is then one of how processors take them."""
    machine = Machine(0.005, 1.0)
    tiny = {each: torch.tensor([1e-40 if denormal == each else 1.0]) for each in ("new", "old")}

    def new() -> torch.Tensor:
        machine.new()
        return tiny["new"]

    def old() -> torch.Tensor:
        machine.old()
        return tiny["old"]

    taken = sample_ratio(new, old, clock=machine.clock, max_time_s=5.0, limit=2.0)
    assert taken.denormal is (denormal != "neither")


def test_the_time_that_is_needed_is_not_the_time_that_was_spent() -> None:
    """Twelve turns would do; more are taken where the limit is close."""
    taken = Machine(0.005, 1.0).sampled(limit=1.0)
    assert taken.needed_s == pytest.approx(12 * 2 * 0.005, rel=0.05)
    assert 3.9 < taken.spent_s <= 4.0


def test_short_calls_are_timed_in_batches_of_their_own_number() -> None:
    """A call of a microsecond beside one of a millisecond."""
    machine = Machine(1e-6, 1000.0)
    taken = machine.sampled(limit=2000.0)
    assert taken.interval is not None
    assert taken.interval.lower < 1000 < taken.interval.upper
    assert machine.order.count("old") > 20 * machine.order.count("new")


@pytest.mark.parametrize("old_s", [0.4, 3.0])
def test_too_slow_calls_have_no_ratio_and_the_time_that_is_told_is_enough(old_s: float) -> None:
    """Twelve turns of both have to fit."""
    taken = Machine(old_s, 1.0).sampled()
    assert (taken.ratios, taken.interval) == ((), None)
    assert Machine(old_s, 1.0).sampled(max_time_s=1.2 * time_for(taken.needed_s), limit=2).interval


def test_the_measurement_says_both_times() -> None:
    """A ratio alone does not tell of what."""
    machine = Machine(0.005, 2.0)
    found = measure_ratio(machine.new, machine.old, clock=machine.clock, limit=3.0)
    assert found.lower is not None
    assert found.upper is not None
    assert found.lower <= (found.value or 0) <= found.upper
    assert re.match(r"(9\.\d+|10\.\d) ms beside (4\.9|5\.0)\d ms, 12 turns", found.notes[0])


def test_the_measurement_says_what_may_explain_it() -> None:
    """Threads, a warm-up without an end, and denormal numbers, as a latency does."""
    machine, tiny = Machine(0.005, 1.0, noise=0.3), torch.tensor([1e-40])

    def new() -> torch.Tensor:
        machine.new()
        return tiny

    notes = measure_ratio(new, machine.old, clock=machine.clock, limit=9.0, max_time_s=0.2).notes
    assert re.search(r", after a warm-up that never became steady, \d+ threads?$", notes[0])
    assert notes[1].startswith("its output holds denormal numbers")


def test_a_call_that_raises_is_unmeasured() -> None:
    """Its error is the reason."""
    machine = Machine(0.005, 1.0)

    def fails() -> None:
        raise ValueError("an iterator at its end")

    found = measure_ratio(machine.new, fails, clock=machine.clock)
    assert found.unmeasured
    assert found.reason == "a call cannot be repeated: ValueError: an iterator at its end"


def test_without_time_it_is_unmeasured_and_says_what_it_takes() -> None:
    """Never a pass."""
    machine = Machine(1.0, 1.0)
    found = measure_ratio(machine.new, machine.old, clock=machine.clock)
    assert found.unmeasured
    assert found.remedy.startswith("give it longer: --nnscale-max-time=3")
