"""Latency from rounds: the time of one call, as rounds tell it that this package did not take.

Counts: what the rounds count, seconds of the wall clock; the stated quantile over rounds.
Does not count: garbage collection is held off only where whoever took the rounds did so.
Error sources: a round of several calls is their mean, which says nothing of how far single calls
stray; others on the machine. Neighbours may depend on each other, and the rounds may have been
stopped when they looked good: the interval allows for both.
Reference: pytest_nnscale.timing.interval.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.timing.interval import Interval, running_interval, sample_quantile
from pytest_nnscale.timing.sequence import least_samples
from pytest_nnscale.units import SECONDS, format_quantity

# Of fewer the interval is so wide that hardly a budget is decided by it.
_TELLING_ROUNDS = 30


class Rounds(NamedTuple):
    """Seconds per call, one for each round, and what is to be done to get some more rounds."""

    seconds: tuple[float, ...]
    source: str
    more: Callable[[int], str]
    calls_per_round: int = 1


def measure_rounds(
    rounds: Rounds, *, quantile: float, confidence: float, interval: Interval | None = None
) -> Measurement:
    """Judge of a call's latency in seconds by rounds; too few of them measure nothing.

    `interval` is that of their quantile, where it is known already.
    """
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
    interval = interval or running_interval(rounds.seconds, quantile, confidence)
    assert interval is not None  # there are rounds enough
    several = f" of {rounds.calls_per_round} calls" if rounds.calls_per_round > 1 else ""
    blocks = ""
    if interval.drifting:
        blocks = ", drifting from one to the next"
    elif interval.block_size > 1:
        blocks = f", in {interval.blocks} blocks of {interval.block_size}"
    value = sample_quantile(rounds.seconds, quantile)
    return Measurement(
        Metric.LATENCY,
        min(max(value, interval.lower), interval.upper),
        interval.lower,
        interval.upper,
        method=rounds.source,
        samples=rounds.seconds,
        notes=(f"{n} rounds{several} by {rounds.source}{blocks}",),
        remedy=rounds.more(2 * n),
    )
