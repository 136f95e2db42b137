"""The ratio of head's time to base's: its interval over restarts, and what it says.

A process keeps the luck of its start, with memory layout above all: identical code differs by some
per cent between two processes for as long as they live. So the unit is the restart: each gives one
value, the logarithm of a ratio, and values of different restarts are independent. Their mean has
Student's interval.
"""

from __future__ import annotations

import enum
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from pytest_nnscale.student import student_quantile


class Change(enum.Enum):
    """What became of one test's time from base to head."""

    SLOWER = "slower"
    FASTER = "faster"
    SAME = "same"
    INCONCLUSIVE = "inconclusive"
    ONLY_IN_BASE = "only in base"
    ONLY_IN_HEAD = "only in head"
    SKIPPED = "skipped"
    UNMEASURED = "unmeasured"


class Ratio(NamedTuple):
    """Head's time divided by base's, with the interval that is known to hold it."""

    value: float
    low: float
    high: float


class Look(NamedTuple):
    """After how many restarts the interval is looked at, and the share of the error it may spend."""

    restarts: int
    share: float


def plan_looks(least: int, most: int) -> tuple[Look, ...]:
    """Return when to look, so that looking repeatedly errs no more often than looking once.

    The shares sum to one (Bonferroni), which holds however the looks depend on each other. Half is
    kept for the last, which needs it most; of simulated plans this one decided most often.
    """
    if most <= least:
        return (Look(least, 1.0),)
    middle = round(math.sqrt(least * most))
    if not least < middle < most:
        return (Look(least, 0.5), Look(most, 0.5))
    return (Look(least, 0.25), Look(middle, 0.25), Look(most, 0.5))


def ratio_of(logs: Sequence[float], *, error: float) -> Ratio:
    """Return the mean ratio of some restarts, from their logarithms, with its interval.

    The interval misses the truth with a probability of at most `error`; of one restart nothing is
    known, and it is infinite.
    """
    mean = statistics.fmean(logs)
    if len(logs) < 2:
        return Ratio(math.exp(mean), 0.0, math.inf)
    spread = statistics.stdev(logs) / math.sqrt(len(logs))
    half = student_quantile(1 - error / 2, len(logs) - 1) * spread
    # Beyond e^700 there is no float.
    low, high = (math.exp(min(max(end, -700.0), 700.0)) for end in (mean - half, mean + half))
    return Ratio(math.exp(mean), low, high)


def judge_ratio(ratio: Ratio, threshold: float) -> Change:
    """Hold the interval of a ratio against a threshold, 0.05 for five per cent.

    Slower is only what is slower by more than the threshold throughout the interval, faster the
    same with the sides exchanged, and the same what cannot be either.
    """
    border = 1 + threshold
    if ratio.low > border:
        return Change.SLOWER
    if ratio.high < 1 / border:
        return Change.FASTER
    if 1 / border <= ratio.low and ratio.high <= border:
        return Change.SAME
    return Change.INCONCLUSIVE


def restarts_to_decide(logs: Sequence[float], *, error: float, threshold: float) -> int | None:
    """Estimate how many restarts would decide; None where the ratio lies too close to a border."""
    if len(logs) < 2:
        return None
    mean, spread = statistics.fmean(logs), statistics.stdev(logs)
    border = math.log(1 + threshold)
    distance = min(abs(mean - border), abs(mean + border))
    most = 20 * len(logs)
    for restarts in range(len(logs) + 1, most):
        half = student_quantile(1 - error / 2, restarts - 1) * spread / math.sqrt(restarts)
        if half < distance:
            return restarts
    return None
