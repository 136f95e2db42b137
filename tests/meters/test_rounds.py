"""Latency by rounds that somebody else took, and by rounds with a setup of their own."""

from __future__ import annotations

import gc
import itertools
import math
import random
import re
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters import dressed as dressed_room
from pytest_nnscale.meters.dressed import measure_dressed
from pytest_nnscale.meters.effort import Effort
from pytest_nnscale.meters.rounds import Rounds, measure_rounds
from pytest_nnscale.timing.clock import FakeClock
from pytest_nnscale.timing.conditions import Watch


def found_by(seconds: Iterable[float], *, quantile: float = 0.5, calls: int = 1) -> Measurement:
    rounds = Rounds(tuple(seconds), "somebody", "ask for {0}".format, calls)
    return measure_rounds(rounds, quantile=quantile, confidence=0.99)


def varying(n: int, seed: int = 1) -> list[float]:
    r = random.Random(seed)
    return [r.uniform(0.009, 0.011) for _ in range(n)]


def test_rounds_tell_a_latency_with_its_interval() -> None:
    """The interval of the quantile, the raw seconds, and whose they are."""
    seconds = varying(200)
    found = found_by(seconds)
    assert found.metric is Metric.LATENCY
    assert found.lower is not None
    assert found.value is not None
    assert found.upper is not None
    assert 0.009 <= found.lower < found.value < found.upper <= 0.011
    assert (found.method, found.samples) == ("somebody", tuple(seconds))
    assert found.notes == ("200 rounds by somebody",)


def test_the_quantile_is_the_one_that_is_asked_for() -> None:
    """A tenth of the rounds takes ten times as long: the p95 is theirs, the median is not."""
    r = random.Random(3)
    seconds = [0.1 if r.random() < 0.1 else 0.01 for _ in range(2000)]
    assert found_by(seconds).upper == 0.01
    assert found_by(seconds, quantile=0.95).lower == 0.1


@pytest.mark.parametrize(
    ("n", "quantile", "needed", "asked"),
    [(0, 0.5, 12, 30), (11, 0.5, 12, 30), (103, 0.95, 104, 104), (50, 0.99, 478, 478)],
)
def test_too_few_rounds_measure_nothing_and_say_how_to_get_more(
    n: int, quantile: float, needed: int, asked: int
) -> None:
    """Never a pass. Thirty at least are asked for: fewer decide hardly a budget."""
    found = found_by([0.01] * n, quantile=quantile)
    assert (found.lower, found.upper) == (None, None)
    assert f"needs {needed} rounds or more, and there were {n}" in found.reason
    assert found.remedy == f"ask for {asked}"


def test_as_many_rounds_as_are_asked_for_suffice() -> None:
    """Whoever follows the remedy has a measurement."""
    for quantile, asked in ((0.5, 30), (0.95, 104), (0.99, 478)):
        assert not found_by([0.01] * asked, quantile=quantile).unmeasured


def test_the_mean_of_several_calls_tells_a_median_and_no_other_quantile() -> None:
    """It hides how far single calls stray: a p95 of means would let too much pass."""
    assert found_by([0.01] * 200, calls=10).upper == 0.01
    found = found_by([0.01] * 200, calls=10, quantile=0.95)
    assert found.unmeasured
    assert "a round is the mean of 10 calls" in found.reason
    assert "iterations=1" in found.remedy


def test_a_wide_interval_comes_with_how_to_get_more() -> None:
    """Of a budget that it does not decide the message has the same remedy."""
    assert found_by(varying(40)).remedy == "ask for 80"


def test_rounds_that_depend_on_each_other_are_all_that_was_seen_and_more() -> None:
    """A steady drift has no block that stands for itself: several times its width is added."""
    found = found_by([10.0 + n / 100 for n in range(40)])
    assert found.lower < 10 - 1.5 * 0.36
    assert found.upper > 10.39 + 1.5 * 0.36
    assert found.notes == ("40 rounds by somebody, drifting from one to the next",)
    assert found_by([0.01] * 20 + [0.5] * 20).lower == 0.0


@pytest.mark.parametrize("n", [12, 20, 40, 120])
def test_rounds_that_depend_on_each_other_are_wrong_less_than_once_in_a_hundred(n: int) -> None:
    """Simulated: an AR(1) process of 0.9, whose true median lies outside."""
    r, wrong, runs = random.Random(n), 0, 1500
    for _ in range(runs):
        level, seconds = r.gauss(0, 1), []
        for _ in range(n):
            level = 0.9 * level + math.sqrt(1 - 0.9**2) * r.gauss(0, 1)
            seconds.append(50 + level)
        found = found_by(seconds)
        assert found.lower is not None
        assert found.upper is not None
        wrong += not found.lower <= 50 <= found.upper
    assert wrong <= runs / 100


class Dressed:
    """A call of 10 ms with a setup of 30 ms and a teardown of 60 ms, on a clock of its own."""

    def __init__(self, calls_s: Iterable[float] = (0.01,)) -> None:
        calls = itertools.cycle(calls_s)
        self.clock = FakeClock(s for call_s in calls for s in (0.03, call_s, 0.06))
        self.log: list[str] = []

    def begin(self) -> tuple[tuple[int], dict[str, int]]:
        self.clock.work()
        self.log.append("begin")
        return (len(self.log),), {"again": 1}

    def function(self, made: int, again: int) -> None:
        self.clock.work()
        self.log.append(f"call {made}")

    def end(self, made: int, again: int) -> None:
        self.clock.work()
        self.log.append(f"end {made}")

    def measured(self, limit_s: float | None = None, **effort: Any) -> Measurement:
        return measure_dressed(
            self,
            Effort(**effort),
            None,
            quantile=0.5,
            device="cpu",
            limit_s=limit_s,
            clock=self.clock,
        )


def test_a_round_times_its_call_and_nothing_else() -> None:
    """Setup and teardown take nine times as long, and do not count."""
    dressed = Dressed()
    found = dressed.measured()
    assert (found.lower, found.value, found.upper) == pytest.approx((0.01,) * 3)
    assert dressed.log[:4] == ["begin", "call 1", "end 1", "begin"]


def test_rounds_end_when_time_is_up() -> None:
    """With all that they need; the first warms up."""
    dressed = Dressed([0.005, 0.015])
    found = dressed.measured(limit_s=0.01, max_time_s=2.0)
    assert len(found.samples) == 19
    assert dressed.clock.time_s <= 2.0 + 0.1


@pytest.mark.parametrize(
    ("limit_s", "rounds"),
    [(1.0, 12), (0.005, 12), (None, 12)],
    ids=["far above", "far below", "none, and all alike"],
)
def test_rounds_end_when_it_is_known_what_was_asked(limit_s: float | None, rounds: int) -> None:
    """Not after all the time that there is."""
    assert len(Dressed().measured(limit_s=limit_s, max_time_s=60).samples) == rounds


def test_garbage_is_not_collected_in_a_round() -> None:
    """It would be an outlier of ours."""
    during: list[bool] = []

    class Looking(Dressed):
        def function(self, made: int, again: int) -> None:
            super().function(made, again)
            during.append(gc.isenabled())

    was_enabled = gc.isenabled()
    gc.enable()
    try:
        found = Looking().measured(max_time_s=2.0)
        assert gc.isenabled()
    finally:
        if not was_enabled:
            gc.disable()
    assert during[1:] == [False] * len(found.samples)


def test_rounds_tell_of_threads_and_of_denormal_numbers() -> None:
    """As any other timing does."""

    class Tiny(Dressed):
        def function(self, made: int, again: int) -> torch.Tensor:
            super().function(made, again)
            return torch.tensor([1e-40])

    notes = Tiny().measured().notes
    assert re.match(r"\d+ threads?$", notes[1])
    assert notes[2].startswith("its output holds denormal numbers")


def test_no_time_for_enough_rounds_says_how_long_it_takes() -> None:
    """A round of a tenth of a second, thirty of which are asked for, and the warm-up."""
    found = Dressed().measured(max_time_s=0.5)
    assert found.unmeasured
    assert "needs 12 rounds or more, and there were 4 of about 10.0 ms" in found.reason
    assert found.remedy == "give it longer: --nnscale-max-time=3.8"
    assert not Dressed().measured(max_time_s=3.8).unmeasured


def test_a_call_that_fails_in_a_later_round_is_no_measurement() -> None:
    """Its error is the reason."""

    class Once(Dressed):
        def function(self, made: int, again: int) -> None:
            super().function(made, again)
            if len(self.log) > 4:
                raise ValueError("only once")

    found = Once().measured()
    assert found.reason == "the benchmarked call cannot be repeated: ValueError: only once"


def test_rounds_on_a_gpu_say_what_it_was_like() -> None:
    """And that its cache was left as it was, which could be asked for."""
    dressed = Dressed()
    effort = Effort(flush_l2=True)
    found = measure_dressed(dressed, effort, quantile=0.5, device="cuda", clock=dressed.clock)
    assert found.notes[2] == "the L2 cache was not emptied"
    assert "GPU" in found.notes[3]


def test_rounds_on_a_gpu_that_throttled_are_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As any other timing on it: the budget is inconclusive at best."""

    class Throttled(Watch):
        disturbed = "the GPU throttled (power cap)"

    monkeypatch.setattr(dressed_room, "conditions", lambda _device: nullcontext(Throttled()))
    found = Dressed().measured()
    assert found.disturbed == "the GPU throttled (power cap)"
    assert found.remedy.startswith("let the GPU cool down")
