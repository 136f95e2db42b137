"""Samples: warmed up, taken until it is known what was asked, in time, or none at all."""

from __future__ import annotations

import gc
import itertools
import random
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pytest
import torch

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.timing.clock import FakeClock
from pytest_nnscale.timing.sampling import Samples, sample, time_for

TICK_S = 1e-3


@dataclass
class CoarseClock(FakeClock):
    """A scripted clock that shows full ticks only."""

    resolution_s: float = TICK_S

    def now_s(self) -> float:
        return self.time_s // self.resolution_s * self.resolution_s


class Work:
    """A call of scripted durations that counts how often it was made."""

    def __init__(self, durations_s: Iterable[float], clock: type[FakeClock] = FakeClock) -> None:
        self.clock = clock(durations_s)
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        self.clock.work()

    def sampled(self, *, max_time_s: float = 1.0, **how: float) -> Samples:
        return sample(self, clock=self.clock, max_time_s=max_time_s, **how)


def steady(duration_s: float) -> Work:
    return Work(itertools.repeat(duration_s))


@pytest.fixture
def gc_state() -> Iterator[None]:
    """Leave the garbage collector as it was."""
    was_enabled = gc.isenabled()
    gc.enable()
    yield
    if not was_enabled:
        gc.disable()


def noisy(middle_s: float, *, warm: int = 3, spread: float = 0.05) -> Work:
    """Return calls of independent durations, after some equal ones that warm up."""
    r = random.Random(7)
    durations = (middle_s * r.uniform(1 - spread, 1 + spread) for _ in itertools.count())
    return Work(itertools.chain([middle_s] * warm, durations))


def test_each_sample_is_what_a_call_took() -> None:
    """In the order of the calls, after three equal ones that warm up."""
    script = [0.4, 0.6, 0.5, *[0.7] * 9]
    taken = Work([0.5] * 3 + script).sampled(max_time_s=10.2)
    assert taken.seconds[:12] == pytest.approx(script)
    assert (taken.calls_per_sample, taken.warm_up_calls) == (1, 3)
    assert taken.spent_s == pytest.approx(sum(script))


def test_calls_that_warm_up_are_no_samples() -> None:
    """The first is the slowest, by far: it loads libraries and compiles."""
    work = Work(itertools.chain([4.0, 2.0, 0.3], itertools.repeat(0.1)))
    taken = work.sampled(max_time_s=50)
    assert taken.seconds == pytest.approx([0.1] * len(taken.seconds))
    # Six calls until three in a row agree.
    assert work.calls == len(taken.seconds) + 6
    assert taken.warm_up_calls == 6
    assert taken.estimate_s == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("first", "warm"),
    [([1.0, 1.0, 1.0], 3), ([1.0, 1.05, 1.09], 3), ([1.2, 1.0, 1.1, 1.0], 4)],
    ids=["equal", "within a tenth", "the first is not"],
)
def test_three_calls_in_a_row_that_agree_within_a_tenth_are_warm(
    first: list[float], warm: int
) -> None:
    """Time that is not needed to warm up is not spent on it."""
    work = Work(itertools.chain(first, itertools.repeat(1.0)))
    taken = work.sampled(max_time_s=100)
    assert work.calls == len(taken.seconds) + warm


def test_calls_that_never_agree_warm_up_for_a_fifth_of_the_time() -> None:
    """Then they are sampled as they are: the interval is as wide as they make it."""
    work = Work(itertools.cycle([0.1, 0.3]))
    taken = work.sampled(max_time_s=10)
    warm_up_s = work.clock.time_s - taken.spent_s
    assert 2.1 <= warm_up_s < 2.1 + 0.3 + 0.3 + 1e-6  # beside the first, and the last two
    assert not taken.steady
    assert sorted({round(s, 9) for s in taken.seconds}) == [0.1, 0.3]


@pytest.mark.parametrize("max_time_s", [0.5, 1.0, 5.0, 60.0])
@pytest.mark.parametrize("duration_s", [1e-5, 1e-4, 3.7e-3, 0.02, 0.03])
def test_sampling_ends_in_time(duration_s: float, max_time_s: float) -> None:
    """Warm-up and samples together take what was allowed, and the rest of a call at most."""
    work = noisy(duration_s)
    taken = work.sampled(max_time_s=max_time_s, limit_s=duration_s)
    assert len(taken.seconds) >= 12
    assert work.clock.time_s <= max_time_s + 1.05 * duration_s * taken.calls_per_sample


@pytest.mark.parametrize("limit", [1.2, 2.0])
def test_a_limit_far_above_the_durations_takes_few_samples(limit: float) -> None:
    """Twelve show that a median surely lies below, where all of them do by far."""
    taken = noisy(0.01).sampled(max_time_s=5, limit_s=0.01 * limit)
    assert taken.interval is not None
    assert taken.interval.upper <= 0.01 * limit
    assert len(taken.seconds) == 12
    assert taken.spent_s < 0.2


@pytest.mark.parametrize("limit", [0.5, 0.8])
def test_what_decides_against_a_call_is_spread_over_half_a_second(limit: float) -> None:
    """Twelve samples show it, too, but only of the tenth of a second that they took."""
    taken = noisy(0.01).sampled(max_time_s=5, limit_s=0.01 * limit)
    assert taken.interval is not None
    assert taken.interval.lower > 0.01 * limit
    assert 0.5 <= taken.spent_s < 0.6


class Held:
    """A call of a millisecond on a machine that takes twice as long at first, for some seconds."""

    def __init__(self, held_s: float, seed: int = 1) -> None:
        self.clock, self._held_s, self._r = FakeClock(()), held_s, random.Random(seed)

    def __call__(self) -> None:
        factor = 2.0 if self.clock.time_s < self._held_s else 1.0
        self.clock.time_s += 1e-3 * factor * self._r.uniform(0.97, 1.03)


@pytest.mark.parametrize("held_s", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("seed", range(5))
def test_a_moment_in_which_the_machine_is_held_up_decides_nothing(held_s: float, seed: int) -> None:
    """Warm-up and the first samples are then alike, and twice as long: of the same code."""
    call = Held(held_s, seed)
    taken = sample(call, clock=call.clock, max_time_s=5.0, limit_s=1.5e-3)
    assert taken.interval is not None
    assert taken.interval.upper <= 1.5e-3


def test_where_there_is_less_time_than_that_all_of_it_is_taken() -> None:
    """Whoever allows a tenth of a second gets what it can tell."""
    taken = noisy(0.001).sampled(max_time_s=0.1, limit_s=0.0005)
    assert taken.interval is not None
    assert taken.interval.lower > 0.0005
    assert 0.07 < taken.spent_s <= 0.08 + 1e-9


def test_a_limit_close_by_takes_more_and_the_limit_itself_all_the_time() -> None:
    """Only a close budget costs time."""
    far, close, on = (
        noisy(0.01).sampled(max_time_s=5, limit_s=0.01 * limit) for limit in (1.1, 1.01, 1.0)
    )
    assert len(far.seconds) < len(close.seconds) < len(on.seconds)
    assert on.interval is not None
    assert on.interval.lower <= 0.01 <= on.interval.upper
    assert 3.9 < on.spent_s <= 4.0 + 0.011


def test_without_a_limit_the_quantile_is_known_within_a_hundredth() -> None:
    """Or as well as time allows."""
    taken = noisy(0.001).sampled(max_time_s=60)
    assert taken.interval is not None
    assert taken.interval.upper - taken.interval.lower <= 0.02 * 0.001 * 1.01
    assert taken.spent_s < 5
    assert len(noisy(0.01, spread=0.5).sampled(max_time_s=1).seconds) > 70


def test_neighbours_that_depend_on_each_other_count_in_blocks() -> None:
    """They say less than as many that do not."""
    r, state, durations = random.Random(3), 0.0, [1.0] * 3
    for _ in range(2000):
        state = 0.9 * state + (1 - 0.9**2) ** 0.5 * r.gauss(0, 1)
        durations.append(1 + 0.05 * state)
    taken = Work(durations).sampled(max_time_s=2000, limit_s=1.0)
    assert taken.interval is not None
    assert taken.interval.block_size >= 15
    assert taken.interval.blocks == len(taken.seconds) // taken.interval.block_size


@pytest.mark.parametrize(
    ("duration_s", "calls"),
    [(0.08, 3), (0.4, 2), (1.0, 2), (3600.0, 2)],
)
def test_too_slow_a_call_is_not_sampled_at_all(duration_s: float, calls: int) -> None:
    """Fewer than twelve have no interval, so their time is not spent; it is told what they need.

    It takes two calls to find out: the first may be slow for itself.
    """
    work = steady(duration_s)
    taken = work.sampled()
    assert (taken.seconds, taken.interval) == ((), None)
    assert taken.estimate_s == pytest.approx(duration_s)
    assert taken.needed_s == pytest.approx(12 * duration_s)
    assert work.calls == calls


@pytest.mark.parametrize("cold", [[3.0], [30.0, 4.0], [3.0, 2.0, 1.0]])
def test_calls_that_compile_are_no_estimate(cold: list[float]) -> None:
    """However long they take: torch.compile, its second compilation, the recording of a graph."""
    work = Work(itertools.chain(cold, itertools.repeat(1e-3)))
    taken = work.sampled(max_time_s=5.0)
    assert taken.interval is not None
    assert taken.interval.upper == pytest.approx(1e-3)
    assert taken.estimate_s == pytest.approx(1e-3)


def test_an_output_is_gone_before_the_next_call() -> None:
    """Two would need twice the memory, with all that hangs on them."""
    clock, alive = FakeClock(itertools.cycle([0.1, 0.3])), weakref.WeakSet[torch.Tensor]()
    most: list[int] = []

    def call() -> torch.Tensor:
        clock.work()
        most.append(len(alive))
        output = torch.ones(1)
        alive.add(output)
        return output

    sample(call, clock=clock, max_time_s=10)
    assert set(most) == {0}


@pytest.mark.parametrize("duration_s", [0.08, 0.37, 2.5, 3600.0])
def test_the_time_that_is_told_is_enough(duration_s: float) -> None:
    """Whoever follows it has a measurement."""
    needed_s = steady(duration_s).sampled().needed_s
    assert steady(duration_s).sampled(max_time_s=time_for(needed_s)).interval is not None


def test_a_drift_is_told_to_be_one() -> None:
    """It has no independent blocks, however large."""
    taken = Work(0.02 * 1.01**n for n in itertools.count()).sampled(limit_s=0.03)
    assert taken.interval is not None
    assert taken.interval.drifting


@pytest.mark.parametrize(
    ("ticks", "batch"),
    [(1000, 1), (100, 1), (50, 2), (10, 10), (1, 100)],
)
def test_short_calls_are_timed_in_batches_of_a_hundred_ticks(ticks: float, batch: int) -> None:
    """A tick is then a hundredth of a sample at most."""
    work = Work(itertools.repeat(ticks * TICK_S))
    work.clock.resolution_s = TICK_S
    taken = work.sampled(max_time_s=100 * max(ticks * TICK_S, 1.0))
    assert taken.calls_per_sample == batch
    assert taken.seconds == pytest.approx([ticks * TICK_S] * len(taken.seconds))
    assert work.calls == 3 + batch * len(taken.seconds)


@pytest.mark.parametrize("ticks", [40, 67, 99])
def test_a_batch_never_has_less_than_a_hundred_ticks(ticks: int) -> None:
    """What the constant promises, where a hundred is no multiple of the call."""
    work = Work(itertools.repeat(ticks * TICK_S))
    work.clock.resolution_s = TICK_S
    assert work.sampled(max_time_s=100).calls_per_sample * ticks >= 100


@pytest.mark.parametrize("duration_s", [0.0003, 0.0017, 0.0123])
def test_a_coarse_clock_still_tells_a_short_call(duration_s: float) -> None:
    """Each sample is off by a tick in its batch, not by a tick."""
    work = Work(itertools.repeat(duration_s), CoarseClock)
    taken = work.sampled(max_time_s=5)
    assert len(taken.seconds) >= 12
    allowed_s = 1.001 * TICK_S / taken.calls_per_sample
    assert all(abs(s - duration_s) <= allowed_s for s in taken.seconds)


def test_a_call_that_takes_no_time_ends() -> None:
    """A clock that stands still is no endless warm-up."""
    taken = steady(0.0).sampled()
    assert set(taken.seconds) == {0.0}


@pytest.mark.parametrize("failing", [1, 2, 4, 14])
@pytest.mark.usefixtures("gc_state")
def test_what_the_call_raises_passes_through(failing: int) -> None:
    """From the warm-up as from a sample, and garbage is collected again."""
    work = steady(0.01)

    def call() -> None:
        work()
        if work.calls == failing:
            raise ZeroDivisionError("at last")

    with pytest.raises(ZeroDivisionError, match="at last"):
        sample(call, clock=work.clock, max_time_s=1.0)
    assert work.calls == failing
    assert gc.isenabled()


@pytest.mark.parametrize("switch", [gc.enable, gc.disable])
@pytest.mark.usefixtures("gc_state")
def test_garbage_is_not_collected_during_a_sample(switch: Callable[[], None]) -> None:
    """It would be an outlier of ours; afterwards it is collected if it was before."""
    switch()
    before, work, during = gc.isenabled(), steady(0.01), []

    def call() -> None:
        work()
        during.append(gc.isenabled())

    taken = sample(call, clock=work.clock, max_time_s=1.0)
    assert during[-len(taken.seconds) :] == [False] * len(taken.seconds)
    assert gc.isenabled() == before


@pytest.mark.parametrize(("quantile", "batch"), [(0.5, 25), (0.9, 1)])
def test_the_median_of_a_short_call_is_taken_over_batches(quantile: float, batch: int) -> None:
    """So that some thousands of samples fill the time; of a rare call the single one is meant."""
    taken = noisy(40e-6).sampled(max_time_s=5, quantile=quantile, limit_s=1.0)
    assert taken.calls_per_sample == batch


@pytest.mark.parametrize("quantile", [0.95, 0.99])
def test_a_quantile_of_calls_that_the_clock_hardly_sees_is_refused(quantile: float) -> None:
    """That of the means of batches is too low, and would let slow calls pass."""
    work = Work(itertools.repeat(20e-6))
    work.clock.resolution_s = 0.5e-6
    with pytest.raises(CannotMeasure) as caught:
        work.sampled(max_time_s=60, quantile=quantile)
    assert caught.value.reason == (
        "a call of about 20.0 us is too short for a clock that goes by 500 ns: the mean of several "
        f"calls hides the p{100 * quantile:g} of single ones"
    )
    assert "the median of such calls can be told" in caught.value.remedy
    assert work.sampled(max_time_s=60).calls_per_sample > 1


def test_a_quantile_of_calls_of_a_hundred_ticks_is_that_of_single_calls() -> None:
    """A tick is then a hundredth of each."""
    work = Work(itertools.repeat(50e-6))
    work.clock.resolution_s = 0.5e-6
    assert work.sampled(max_time_s=60, quantile=0.95, limit_s=1.0).calls_per_sample == 1


def test_what_goes_on_beside_the_samples_counts_towards_the_time() -> None:
    """Such as the wipe of a cache before each call, which takes longer than the call."""

    class Wiping(FakeClock):
        def times_s(self, call: Callable[[], object], *, calls: int, batches: int) -> list[float]:
            self.time_s += 10e-3 * calls * batches
            return super().times_s(call, calls=calls, batches=batches)

    clock = Wiping(itertools.repeat(1e-3))
    taken = sample(clock.work, clock=clock, max_time_s=5.0, limit_s=1e-3 * (1 - 1e-9))
    assert taken.interval is not None
    assert clock.time_s <= 5.0 + 0.02
    assert taken.spent_s > 10 * sum(taken.seconds)


def test_as_many_samples_as_are_ever_taken_are_told_to_be() -> None:
    """More time would not help."""
    taken = noisy(1e-5).sampled(max_time_s=60, quantile=0.6, limit_s=1.01e-5)
    assert (taken.capped, len(taken.seconds)) == (True, 100_000)
    assert not noisy(1e-5).sampled(max_time_s=0.2, quantile=0.6, limit_s=1e-5).capped


def test_denormal_numbers_that_come_later_are_noticed() -> None:
    """What is multiplied over and over becomes ever smaller."""
    clock, state = FakeClock(itertools.repeat(0.01)), torch.tensor([1e-30])

    def call() -> torch.Tensor:
        clock.work()
        state.mul_(0.2)
        return state

    assert sample(call, clock=clock, max_time_s=1.0, limit_s=1.0).denormal


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_an_output_that_cannot_be_looked_at_is_no_error(layout: torch.layout) -> None:
    """It says nothing of the call, which can be repeated."""
    clock = FakeClock(itertools.repeat(0.01))
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=layout)

    def call() -> torch.Tensor:
        clock.work()
        return nested

    assert not sample(call, clock=clock, max_time_s=1.0).denormal


@pytest.mark.parametrize(
    ("output", "denormal"),
    [
        (None, False),
        (torch.zeros(3), False),
        (torch.tensor([1.0, 1e-40]), True),
        ({"a": [torch.ones(2), torch.tensor(1e-310, dtype=torch.float64)]}, True),
        (torch.ones(2, dtype=torch.int64), False),
    ],
)
def test_denormal_numbers_in_the_output_are_noticed(output: object, denormal: bool) -> None:
    """Processors are slow with them, and the time is theirs."""
    clock = FakeClock(itertools.repeat(0.01))

    def call() -> object:
        clock.work()
        return output

    assert sample(call, clock=clock, max_time_s=1.0).denormal is denormal
