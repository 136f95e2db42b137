"""Samples: warmed up, of a number fixed before the first, in time, or none at all."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pytest

from pytest_nnscale.timing.clock import FakeClock
from pytest_nnscale.timing.sampling import Samples, sample

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

    def sampled(self, *, max_time_s: float = 1.0, least: int = 8) -> Samples:
        return sample(self, clock=self.clock, max_time_s=max_time_s, least=least)


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


def test_each_sample_is_what_a_call_took() -> None:
    """In the order of the calls, after three equal ones that warm up."""
    script = [0.4, 0.6, 0.5, *[0.7] * 7]
    taken = Work([0.51] * 3 + script).sampled(max_time_s=6.5)
    assert taken == Samples(pytest.approx(script), 1, 10, pytest.approx(0.51))


def test_calls_that_warm_up_are_no_samples() -> None:
    """The first is the slowest, by far: it loads libraries and compiles."""
    work = Work(itertools.chain([4.0, 2.0, 0.3], itertools.repeat(0.1)))
    taken = work.sampled(max_time_s=50)
    assert taken.seconds == pytest.approx([0.1] * len(taken.seconds))
    # Six calls until three in a row agree.
    assert work.calls == len(taken.seconds) + 6
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
    warm_up_s = work.clock.time_s - sum(taken.seconds)
    assert 2.0 <= warm_up_s < 2.0 + 0.3 + 1e-6
    assert sorted({round(s, 9) for s in taken.seconds}) == [0.1, 0.3]


@pytest.mark.parametrize("max_time_s", [0.5, 1.0, 5.0, 60.0])
@pytest.mark.parametrize("duration_s", [1e-5, 1e-4, 3.7e-3, 0.02, 0.049])
def test_sampling_ends_in_time(duration_s: float, max_time_s: float) -> None:
    """Warm-up and samples together take what was allowed, and the rest of a call at most."""
    work = steady(duration_s)
    taken = work.sampled(max_time_s=max_time_s)
    assert len(taken.seconds) >= 8
    assert work.clock.time_s <= max_time_s + duration_s


@pytest.mark.parametrize(
    ("duration_s", "least", "n"),
    [
        (0.01, 8, 80),
        (0.1, 8, 8),
        (0.01, 80, 80),
        (1e-5, 8, 1000),
        (1e-5, 2500, 2500),
    ],
    ids=["as many as fit", "just enough", "just enough of many", "a thousand", "more if it must"],
)
def test_the_number_of_samples_is_what_the_rest_of_the_time_affords(
    duration_s: float, least: int, n: int
) -> None:
    """Four fifths of a second, a thousand unless the interval needs more."""
    assert len(steady(duration_s * (1 - 1e-9)).sampled(least=least).seconds) == n


@pytest.mark.parametrize("later_s", [0.001, 0.1, 10.0])
def test_the_number_is_fixed_before_the_first_sample(later_s: float) -> None:
    """Whatever the samples turn out to be, none is added and none left out."""
    work = Work(itertools.chain([0.0999] * 3, itertools.repeat(later_s)))
    assert len(work.sampled(max_time_s=10).seconds) == 80


@pytest.mark.parametrize(
    ("duration_s", "affordable", "calls"),
    [(0.11, 7, 2), (0.4, 2, 1), (1.0, 0, 1), (3600.0, 0, 1)],
)
def test_too_slow_a_call_is_not_sampled_at_all(
    duration_s: float, affordable: int, calls: int
) -> None:
    """Fewer samples than asked for have no interval, so their time is not spent."""
    work = steady(duration_s)
    assert work.sampled() == Samples((), 1, affordable, pytest.approx(duration_s))
    assert work.calls == calls


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
    assert len(taken.seconds) >= 8
    allowed_s = 1.001 * TICK_S / taken.calls_per_sample
    assert all(abs(s - duration_s) <= allowed_s for s in taken.seconds)


def test_a_call_that_takes_no_time_ends() -> None:
    """A clock that stands still is no endless warm-up."""
    taken = steady(0.0).sampled()
    assert set(taken.seconds) == {0.0}
    assert len(taken.seconds) == 1000


@pytest.mark.parametrize("failing", [1, 2, 4, 20])
@pytest.mark.usefixtures("gc_state")
def test_what_the_call_raises_passes_through(failing: int) -> None:
    """From the warm-up as from a sample, and garbage is collected again."""
    work = steady(0.01)

    def call() -> None:
        work()
        if work.calls == failing:
            raise ZeroDivisionError("at last")

    with pytest.raises(ZeroDivisionError, match="at last"):
        sample(call, clock=work.clock, max_time_s=1.0, least=8)
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

    taken = sample(call, clock=work.clock, max_time_s=1.0, least=8)
    assert during[-len(taken.seconds) :] == [False] * len(taken.seconds)
    assert gc.isenabled() == before
