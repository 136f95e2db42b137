"""Latency of a dressed call, which needs something before and after each round of it.

Counts: seconds of the wall clock for the call of each round; the stated quantile over rounds.
Does not count: what goes before and after the call; the first round, which warms up; garbage
collection, which is held off meanwhile.
Error sources: as for latency. A call is made once for each setup, so that a GPU is waited for rather
than timed by events, and its cache is not emptied.
Reference: pytest_nnscale.meters.rounds, pytest_nnscale.timing.sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters.circumstances import denormals, threads, threads_since
from pytest_nnscale.meters.effort import Effort
from pytest_nnscale.meters.rounds import Rounds, measure_rounds
from pytest_nnscale.timing.clock import Clock, WallClock
from pytest_nnscale.timing.conditions import conditions
from pytest_nnscale.timing.denormals import any_denormal
from pytest_nnscale.timing.interval import Interval, Looks
from pytest_nnscale.timing.sampling import time_for, until_decided
from pytest_nnscale.timing.sequence import least_samples


class Dressed(Protocol):
    """A call that needs something before and after each round of it."""

    @property
    def function(self) -> Callable[..., object]:
        """The call itself."""

    def begin(self) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Begin a round, and return the arguments of the call."""

    def end(self, *args: Any, **kwargs: Any) -> None:
        """End a round."""


def measure_dressed(
    target: Dressed,
    effort: Effort,
    _call: object = None,
    *,
    quantile: float,
    device: str,
    limit_s: float | None = None,
    clock: Clock | None = None,
) -> Measurement:
    """Time the call of each round, and not what goes before and after it; never raises.

    Rounds are taken until it is known on which side of `limit_s` the quantile lies, or time is up;
    what goes before and after the calls counts towards that.
    """
    before = threads()
    try:
        with conditions(device) as watch:
            taken = _Taken(target, clock or WallClock(device))
            taken.until_decided(effort, quantile, limit_s, watch.look)
    except CannotMeasure as error:
        return Measurement.nothing(Metric.LATENCY, reason=error.reason, remedy=error.remedy)
    except Exception as error:
        return Measurement.nothing(
            Metric.LATENCY,
            reason=f"the benchmarked call cannot be repeated: {type(error).__name__}: {error}",
            remedy="benchmark a call that can run many times",
        )
    found = measure_rounds(
        Rounds(tuple(taken.seconds), "wall clock", taken.more),
        quantile=quantile,
        confidence=effort.confidence,
        interval=taken.interval,
    )
    cold = ("the L2 cache was not emptied",) if effort.flush_l2 and device != "cpu" else ()
    also = (threads_since(before), *denormals(taken.denormal), *cold, *watch.notes)
    return replace(
        found,
        notes=(*found.notes, *also),
        remedy=watch.remedy or found.remedy,
        disturbed=watch.disturbed,
    )


class _Taken:
    """Rounds of a dressed call, timed by a clock: the seconds of each call, and all of a round."""

    def __init__(self, target: Dressed, clock: Clock) -> None:
        self._target, self._clock = target, clock
        self.seconds: list[float] = []
        self.interval: Interval | None = None
        self.round_s = 0.0
        self.denormal: bool | None = None

    def until_decided(
        self,
        effort: Effort,
        quantile: float,
        limit_s: float | None,
        look: Callable[[], object],
    ) -> None:
        """Take rounds while there is time and need; the first warms up, and does not count.

        Where it lets expect too few, there are as many as fit.
        """
        clock, begun_s = self._clock, self._clock.now_s()
        self._some(1)
        self.round_s = max(clock.now_s() - begun_s, clock.resolution_s)
        left_s = effort.max_time_s - self.round_s
        affordable = int(left_s / self.round_s + 1e-9)
        series = until_decided(
            self._some,
            Looks(quantile, effort.confidence),
            now_s=clock.now_s,
            least=min(least_samples(quantile, effort.confidence), affordable),
            time_s=left_s,
            tick_s=clock.resolution_s,
            limit=limit_s,
            look=look,
        )
        self.seconds, self.interval = series.samples, series.interval
        if self.seconds:
            self.round_s = series.spent_s / len(self.seconds)

    def more(self, rounds: int) -> str:
        """Say how to get so many rounds."""
        return f"give it longer: --nnscale-max-time={time_for(rounds * self.round_s):g}"

    def _some(self, rounds: int) -> list[float]:
        """Take some rounds, and return the seconds of each call; the last output is looked at."""
        target, clock, seconds = self._target, self._clock, []
        for left in reversed(range(rounds)):
            args, kwargs = target.begin()
            start_s = clock.now_s()
            output = target.function(*args, **kwargs)
            seconds.append(clock.now_s() - start_s)
            if not left:
                self.denormal = any_denormal(output)
            del output
            target.end(*args, **kwargs)
        return seconds
