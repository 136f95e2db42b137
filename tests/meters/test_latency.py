"""Latency: the time of a call with its interval, or why there is none."""

from __future__ import annotations

import itertools
import random
import re
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from pytest_nnscale.budget import Budget, Outcome, judge
from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters import latency as latency_room
from pytest_nnscale.meters.effort import Effort
from pytest_nnscale.meters.latency import measure_latency
from pytest_nnscale.meters.table import measure
from pytest_nnscale.observation import Observation
from pytest_nnscale.observing import observe
from pytest_nnscale.timing.clock import FakeClock
from pytest_nnscale.timing.conditions import Watch
from pytest_nnscale.timing.interval import running_interval, sample_quantile
from pytest_nnscale.workload import Workload

SLEEP_S = 0.002
SHORT = Effort(max_time_s=0.2, confidence=0.9)


class Nap(nn.Module):
    """A model that takes a known time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(SLEEP_S)
        return x + 1


def scripted(durations_s: Iterable[float], **how: object) -> Measurement:
    clock = FakeClock(durations_s)
    return measure_latency(clock.work, clock=clock, **how)


def lasting(duration_s: float, **how: object) -> Measurement:
    return scripted(itertools.repeat(duration_s), **how)


def failing_at(number: int, error: BaseException) -> tuple[Callable[[], None], FakeClock]:
    """Return a call of ten milliseconds that raises when it is made for the n-th time."""
    clock, calls = FakeClock(itertools.repeat(0.01)), itertools.count(1)

    def call() -> None:
        clock.work()
        if next(calls) == number:
            raise error

    return call, clock


@pytest.mark.parametrize("duration_s", [2e-6, 0.003, 0.3])
def test_a_call_of_known_duration_takes_that_long(duration_s: float) -> None:
    """Where every call takes the same, so do the value and both ends."""
    found = lasting(duration_s)
    assert found.metric is Metric.LATENCY
    assert (found.value, found.lower, found.upper) == pytest.approx((duration_s,) * 3)
    assert not found.unmeasured


def test_it_states_its_clock_its_samples_and_its_threads() -> None:
    """A number that is noisy says where it comes from."""
    found = lasting(0.01, limit_s=1.0)
    threads = torch.get_num_threads()
    assert found.method == "wall clock"
    assert found.notes == (
        f"12 samples of a call after 3 to warm up, {threads} thread{'s' * (threads > 1)}",
    )
    assert len(found.samples) == 12


def test_it_states_how_many_calls_a_sample_has() -> None:
    """Calls that are shorter than the clock's tick are timed together."""
    clock = FakeClock(itertools.repeat(1e-3), resolution_s=1e-3)
    found = measure_latency(clock.work, clock=clock, max_time_s=2.6)
    assert found.notes[0].startswith("12 samples of 100 calls after 3 to warm up, ")
    assert found.value == pytest.approx(1e-3)


def test_it_states_what_timing_takes_where_that_tells() -> None:
    """Two readings of the clock are a part of a call that is as short as they are."""

    class SlowClock(FakeClock):
        """One whose reading takes a microsecond."""

        def now_s(self) -> float:
            self.time_s += 1e-6
            return self.time_s

    notes = {}
    for duration_s in (1e-4, 1e-2):
        clock = SlowClock(itertools.repeat(duration_s))
        found = measure_latency(clock.work, clock=clock, quantile=0.6, limit_s=1.0)
        notes[duration_s] = [note for note in found.notes if "timing takes" in note]
    assert notes == {1e-4: ["timing takes 1.00 us of each call"], 1e-2: []}


def test_it_states_that_the_calls_never_became_steady() -> None:
    """They may be slower than they would be."""
    found = scripted(itertools.cycle([0.1, 0.3]), max_time_s=10)
    assert re.search(r"after \d+ to warm up, which never became steady", found.notes[0])


def test_as_many_samples_as_are_ever_taken_ask_for_no_more_time() -> None:
    """The remedy says that it would not help."""
    r = random.Random(7)
    calls = itertools.chain([1e-5] * 3, (r.uniform(0.95e-5, 1.05e-5) for _ in itertools.count()))
    found = scripted(calls, max_time_s=60, quantile=0.6, limit_s=1.01e-5)
    assert len(found.samples) == 100_000
    assert found.remedy.startswith("more time would not help")


def test_a_gpu_that_throttled_is_to_cool_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """To measure it for longer makes it no cooler."""

    class Throttled(Watch):
        disturbed = "the GPU throttled (power cap)"

    monkeypatch.setattr(latency_room, "conditions", lambda _device: nullcontext(Throttled()))
    found = lasting(0.01, limit_s=1.0)
    assert found.disturbed == "the GPU throttled (power cap)"
    assert found.remedy.startswith("let the GPU cool down")


def test_threads_that_change_meanwhile_are_told() -> None:
    """Both numbers, since the samples are of both."""
    clock = FakeClock(itertools.repeat(0.01))
    before = torch.get_num_threads()

    def call() -> None:
        clock.work()
        torch.set_num_threads(before + 1)

    try:
        found = measure_latency(call, clock=clock, limit_s=1.0)
    finally:
        torch.set_num_threads(before)
    assert found.notes[0].endswith(f", later {before + 1} threads")


@pytest.mark.parametrize("flushed", [False, True])
def test_denormal_numbers_are_told(flushed: bool) -> None:
    """And whether this thread computes with them."""
    clock = FakeClock(itertools.repeat(0.01))

    def call() -> torch.Tensor:
        clock.work()
        return tiny

    tiny = torch.tensor([1e-40])
    if not torch.set_flush_denormal(flushed):
        pytest.skip("this processor cannot flush denormal numbers")
    try:
        notes = measure_latency(call, clock=clock, limit_s=1.0).notes
    finally:
        torch.set_flush_denormal(False)
    if flushed:
        assert not any("slow with" in note for note in notes)
    else:
        assert notes[1].endswith("slow with: torch.set_flush_denormal(True)")


@pytest.mark.parametrize("quantile", [0.25, 0.5, 0.9])
def test_the_interval_is_that_of_the_quantile_that_was_asked(quantile: float) -> None:
    """And the value its sample quantile; the samples are there to compute it again."""
    r = random.Random(3)
    calls = itertools.chain([1.0] * 3, (r.uniform(0.5, 1.0) for _ in itertools.count()))
    found = scripted(calls, quantile=quantile, confidence=0.9, max_time_s=100)
    again = running_interval(found.samples, quantile, 0.9)
    assert again is not None
    assert again.lower <= found.lower < found.upper <= again.upper
    assert found.value == sample_quantile(found.samples, quantile)
    assert found.lower < found.value < found.upper


def test_more_confidence_gives_a_wider_interval() -> None:
    """It arrives where the interval is computed."""
    r = random.Random(4)
    calls = [0.5] * 3 + [r.random() for _ in range(1000)]
    sure, surer = (scripted(calls, confidence=c, max_time_s=100) for c in (0.8, 0.999))
    assert surer.lower < sure.lower < sure.upper < surer.upper


def test_the_first_calls_do_not_count() -> None:
    """They warm up, and may take a hundred times as long."""
    found = scripted(itertools.chain([0.9, 0.1], itertools.repeat(0.01)), max_time_s=10)
    assert max(found.samples) == pytest.approx(0.01)


def test_too_slow_a_call_is_unmeasured_and_says_what_it_takes() -> None:
    """Twelve calls are needed for a median at 99 %, and two fit."""
    found = lasting(2.0, max_time_s=5)
    assert found.unmeasured
    assert (found.value, found.lower, found.upper, found.samples) == (None, None, None, ())
    assert found.reason == (
        "p50 at 99 % needs 12 calls of about 2.00 s, and there was no time for so many"
    )
    assert found.remedy == "give it longer: --nnscale-max-time=30"


@pytest.mark.parametrize(("quantile", "calls"), [(0.9, 55), (0.95, 104), (0.99, 478)])
def test_a_rarer_quantile_needs_more_calls(quantile: float, calls: int) -> None:
    """Hundreds for p99, where twelve do for the median."""
    assert not lasting(0.1, max_time_s=5).unmeasured
    found = lasting(0.11, max_time_s=5, quantile=quantile)
    assert found.reason.startswith(f"p{100 * quantile:g} at 99 % needs {calls} calls of about 110")


def test_less_confidence_needs_fewer_calls() -> None:
    """Eight for a median at 90 %."""
    found = lasting(0.2, max_time_s=1, confidence=0.9)
    assert found.reason.startswith("p50 at 90 % needs 8 calls of about 200 ms")
    assert len(lasting(0.2, max_time_s=2.0, confidence=0.9).samples) == 8


@pytest.mark.parametrize(("limit_s", "outcome"), [(0.03, Outcome.UNMEASURED), (9, Outcome.WITHIN)])
def test_calls_that_drift_are_held_against_limits_far_away_alone(
    limit_s: float, outcome: Outcome
) -> None:
    """A machine that becomes slower all the time has no median that a close limit could judge."""
    found = scripted((0.02 * 1.01**n for n in itertools.count()), max_time_s=1.0, limit_s=limit_s)
    assert "drifting from one of" in found.notes[0]
    assert judge(Budget(Metric.LATENCY, limit_s), found) is outcome


def remedied(duration_s: float) -> Measurement:
    """Return what following the remedy of a call that was too slow comes to."""
    asked = re.search(r"max-time=(\S+)", lasting(duration_s, max_time_s=duration_s).remedy)
    assert asked is not None
    return lasting(duration_s, max_time_s=float(asked[1]))


@pytest.mark.parametrize("duration_s", [0.0199, 0.3, 0.4999, 1.29])
def test_the_remedy_helps(duration_s: float) -> None:
    """With the time that it asks for, the call is measured."""
    assert remedied(duration_s).value == pytest.approx(duration_s)


@pytest.mark.parametrize("duration_s", [0.0204, 0.123, 1.24, 12.3])
def test_the_remedy_helps_where_it_is_rounded(duration_s: float) -> None:
    """12.4 s that become 12 s are too few again."""
    assert remedied(duration_s).value == pytest.approx(duration_s)


def test_the_remedy_is_never_no_time_at_all() -> None:
    """A call that is shorter than a coarse tick has no estimate, and still needs its batches."""
    clock = FakeClock(itertools.repeat(0.0), resolution_s=0.016)
    found = measure_latency(clock.work, clock=clock, max_time_s=5)
    assert found.unmeasured
    assert float(found.remedy.partition("=")[2]) > 5


@pytest.mark.parametrize("number", [1, 3, 14])
def test_a_call_that_raises_is_unmeasured(number: int) -> None:
    """The first time or any later one: its error is the reason."""
    call, clock = failing_at(number, ValueError("an iterator at its end"))
    found = measure_latency(call, clock=clock)
    assert found.unmeasured
    assert found.reason == "the call cannot be repeated: ValueError: an iterator at its end"
    assert found.remedy == "hand the nnscale fixture a call that can run many times"


def test_what_cannot_be_measured_keeps_its_own_reason_and_remedy() -> None:
    """A model without parameters has nothing to train; no other call would help."""
    call, clock = failing_at(1, CannotMeasure("nothing to train", remedy="drop phase='training'"))
    found = measure_latency(call, clock=clock)
    assert (found.reason, found.remedy) == ("nothing to train", "drop phase='training'")


def test_an_interrupt_passes_through() -> None:
    """Control-C is not a measurement."""
    call, clock = failing_at(2, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        measure_latency(call, clock=clock)


def test_the_wall_clock_finds_the_duration_of_a_function() -> None:
    """It never sleeps less than asked, and on a busy machine a few times as long."""
    found = measure_latency(lambda: time.sleep(SLEEP_S), max_time_s=1.0, limit_s=1.0)
    assert found.lower <= found.value <= found.upper
    assert SLEEP_S <= found.value < 10 * SLEEP_S


def test_the_wall_clock_finds_the_duration_of_a_model() -> None:
    """Through the whole pipeline, named after its class."""
    seen = observe(Workload(Nap(), (torch.ones(2),)), runs=True)
    found = measure(Metric.LATENCY, seen, effort=SHORT, limit=1.0)
    assert SLEEP_S <= found.value < 10 * SLEEP_S
    assert (found.subject, found.method) == ("Nap", "wall clock")


def test_a_time_that_is_asked_for_is_kept() -> None:
    """The clock on the wall agrees."""
    begun_s = time.perf_counter()
    measure_latency(lambda: time.sleep(SLEEP_S), max_time_s=0.1)
    assert time.perf_counter() - begun_s < 3  # collecting garbage takes a part of it


@pytest.mark.parametrize(("quantile", "label"), [(None, "p50"), (0.9, "p90")])
def test_the_median_is_meant_where_no_quantile_is(quantile: float | None, label: str) -> None:
    """A budget that states none is for the median."""
    seen = Observation("nap", repeat=lambda: time.sleep(SLEEP_S))
    found = measure(Metric.LATENCY, seen, quantile=quantile, effort=Effort(max_time_s=0.001))
    assert found.reason.startswith(f"{label} at 99 % needs ")


def test_what_cannot_run_again_is_unmeasured() -> None:
    """With the reason and remedy that were known already."""
    seen = Observation("it", reason="nothing was run", remedy="hand over inputs")
    found = measure(Metric.LATENCY, seen)
    assert found.unmeasured
    assert (found.reason, found.remedy, found.subject) == (seen.reason, seen.remedy, "it")
