"""Latency from rounds: the time of one call, as rounds tell it that this package did not take.

Counts: what the rounds count, seconds of the wall clock; the stated quantile over rounds.
Does not count: garbage collection is held off only where whoever took the rounds did so.
Error sources: a round of several calls is their mean, which says nothing of how far single calls
stray; others on the machine. Neighbours may depend on each other, and the rounds may have been
stopped when they looked good: the interval allows for both.
Reference: pytest_nnscale.timing.interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters.effort import Effort
from pytest_nnscale.timing.clock import Clock, WallClock
from pytest_nnscale.timing.conditions import conditions
from pytest_nnscale.timing.interval import running_interval, sample_quantile
from pytest_nnscale.timing.sampling import time_for
from pytest_nnscale.timing.sequence import least_samples
from pytest_nnscale.units import SECONDS, format_quantity

# Of fewer the interval is so wide that hardly a budget is decided by it.
_TELLING_ROUNDS = 30
_MOST_ROUNDS = 1000


class Rounds(NamedTuple):
    """Seconds per call, one for each round, and what is to be done to get some more rounds."""

    seconds: tuple[float, ...]
    source: str
    more: Callable[[int], str]
    calls_per_round: int = 1


def measure_rounds(rounds: Rounds, *, quantile: float, confidence: float) -> Measurement:
    """Judge of a call's latency in seconds by rounds; too few of them measure nothing."""
    n, quantile_name = len(rounds.seconds), f"p{100 * quantile:g}"
    if quantile != 0.5 and rounds.calls_per_round > 1:
        return Measurement.nothing(
            Metric.LATENCY,
            reason=f"a round is the mean of {rounds.calls_per_round} calls, "
            f"which hides the {quantile_name} of single ones",
            remedy="benchmark.pedantic(..., iterations=1) times each call by itself",
        )
    least = least_samples(quantile, confidence)
    if n < least:
        each = (
            f" of about {format_quantity(sample_quantile(rounds.seconds, 0.5), SECONDS)}"
            if n
            else ""
        )
        return Measurement.nothing(
            Metric.LATENCY,
            reason=f"{quantile_name} at {100 * confidence:g} % needs {least} rounds or more, "
            f"and there were {n}{each}",
            remedy=rounds.more(max(_TELLING_ROUNDS, least)),
        )
    interval = running_interval(rounds.seconds, quantile, confidence)
    assert interval is not None  # there are rounds enough
    several = f" of {rounds.calls_per_round} calls" if rounds.calls_per_round > 1 else ""
    blocks = ""
    if interval.drifting:
        blocks = ", drifting from one to the next"
    elif interval.block_size > 1:
        blocks = f", in {interval.blocks} blocks of {interval.block_size}"
    return Measurement(
        Metric.LATENCY,
        sample_quantile(rounds.seconds, quantile),
        interval.lower,
        interval.upper,
        method=rounds.source,
        samples=rounds.seconds,
        notes=(f"{n} rounds{several} by {rounds.source}{blocks}",),
        remedy=rounds.more(2 * n),
    )


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
    clock: Clock | None = None,
) -> Measurement:
    """Time the call of each round, and not what goes before and after it; never raises.

    What goes before and after counts towards the time that it may take. A call is made once for
    each setup, so that a GPU is waited for rather than timed by events, and its cache is not emptied.
    """
    try:
        with conditions(device) as watch:
            rounds = _take(target, clock or WallClock(device), effort.max_time_s)
    except CannotMeasure as error:
        return Measurement.nothing(Metric.LATENCY, reason=error.reason, remedy=error.remedy)
    except Exception as error:
        return Measurement.nothing(
            Metric.LATENCY,
            reason=f"the benchmarked call cannot be repeated: {type(error).__name__}: {error}",
            remedy="benchmark a call that can run many times",
        )
    found = measure_rounds(rounds, quantile=quantile, confidence=effort.confidence)
    cold = ("the L2 cache was not emptied",) if effort.flush_l2 and device != "cpu" else ()
    return replace(found, notes=(*found.notes, *cold, *watch.notes), disturbed=watch.disturbed)


def _take(target: Dressed, clock: Clock, max_time_s: float) -> Rounds:
    """Take rounds while there is time; the first warms up, and does not count."""
    seconds: list[float] = []
    begun_s = clock.now_s()
    while True:
        args, kwargs = target.begin()
        start_s = clock.now_s()
        target.function(*args, **kwargs)
        seconds.append(clock.now_s() - start_s)
        target.end(*args, **kwargs)
        round_s = (clock.now_s() - begun_s) / len(seconds)
        if len(seconds) > _MOST_ROUNDS or (len(seconds) + 1) * round_s > max_time_s * (1 + 1e-9):
            break
    return Rounds(
        tuple(seconds[1:]),
        "wall clock",
        lambda n: f"give it longer: --nnscale-max-time={time_for(n * round_s):g}",
    )
