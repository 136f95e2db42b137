"""The interval of a quantile, with no assumption on how the samples are distributed.

`quantile_interval` is for independent samples whose number was fixed before the first was taken.
Source: H. A. David and H. N. Nagaraja, Order Statistics, 3rd edition, section 7.1: the number of
samples below the q-quantile is binomial(n, q), so two order statistics enclose it with a
probability that depends on n and q alone.

`running_interval` may be looked at after every sample, and stopped at when it looks good; and its
samples may depend on their neighbours: see `sequence` and `blocks`.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from pytest_nnscale.timing.blocks import (
    CORRELATED,
    lag_correlation,
    medians_of_blocks,
)
from pytest_nnscale.timing.sequence import least_samples, surely_above, surely_below

# A machine that drifts goes up and down in stretches. Of blocks that depend on each other it is these
# that count as independent values do: the interval reaches beyond all that was seen, with so many
# stretches at most by so many spreads. Simulated in the tests: of runs of an AR(1) process of 0.9 that
# were stopped when they looked decided, less than 1 % were wrong.
_STRETCHES = ((3, 6.0), (4, 3.0), (5, 1.5))
_DRIFT = 0.75
# Of fewer blocks than this it can hardly be told whether they depend on each other: the interval is
# then wider, too, and of fewer than these by so many spreads at least.
_TELLING, _FEW = 30, ((14, 1.5), (20, 1.0))
# Of samples that all depend on their neighbours so many times the least number are many; of fewer it
# reaches as far as with the fewest stretches.
_MANY, _MUCH_WIDER = 4, 6.0


class Interval(NamedTuple):
    """Where a quantile lies, and on how many blocks of how many samples that rests.

    Where it is `drifting`, they depend on each other all the same: the machine changes slowly.
    """

    lower: float
    upper: float
    blocks: int
    block_size: int
    drifting: bool = False


def running_interval(
    samples: Sequence[float], quantile: float, confidence: float
) -> Interval | None:
    """Return the interval that holds the quantile with `confidence` at all times together, or None.

    None where samples are too few: see `sequence.least_samples`. Where even large blocks are
    correlated, it reaches as far beyond all of them as a drift may.
    """
    least = least_samples(quantile, confidence)
    size = 1
    while len(samples) // size >= least:
        medians = medians_of_blocks(samples, size)
        if lag_correlation(medians) < CORRELATED:
            return _enclosing(samples, medians, size, quantile, confidence)
        size = 2 * size + 1
    if len(samples) < least:
        return None
    return _around_a_drift(samples, (size - 1) // 2, quantile, many=len(samples) >= _MANY * least)


def _around_a_drift(
    samples: Sequence[float], size: int, quantile: float, *, many: bool
) -> Interval:
    """Return where the quantile lies if the machine drifts on, by as much as it has so far.

    With few stretches or few samples it is several times as much, so that only a limit far away is
    decided.
    """
    values = medians_of_blocks(samples, size)
    blocks = len(values)
    spreads = _beyond(values) if many else _MUCH_WIDER
    if quantile != 0.5:
        values = [*samples]
    least, most = min(values), max(values)
    wider = spreads * (most - least)
    return Interval(max(0.0, least - wider), most + wider, blocks, size, drifting=True)


def _beyond(medians: Sequence[float]) -> float:
    """Return how many spreads a drift may reach beyond blocks that depend on each other."""
    stretches = _stretches_of(medians)
    return next((spreads for most, spreads in _STRETCHES if stretches <= most), _DRIFT)


def _wider(medians: Sequence[float]) -> float:
    """Return how many spreads wider the interval of blocks is that do not seem to depend."""
    n = len(medians)
    if n >= _TELLING:
        return 0.0
    few = next((spreads for under, spreads in _FEW if n < under), 0.0)
    return few if n < _FEW[0][0] else max(few, _beyond(medians))


def _stretches_of(values: Sequence[float]) -> int:
    """Return how many times in a row values lie on one side of their median, then on the other."""
    middle = statistics.median(values)
    above = [value > middle for value in values if value != middle]
    return 1 + sum(one != other for one, other in pairwise(above))


class Looks:
    """Intervals of a quantile as samples become more: what all looks agree on.

    As they hold at all times together, their intersection does. Looks at less than half of the
    samples that there are by now are forgotten, and all earlier ones where they disagree with the
    last: a machine may change.
    """

    def __init__(self, quantile: float, confidence: float) -> None:
        self._quantile, self._confidence = quantile, confidence
        self._seen: list[tuple[int, Interval]] = []

    def look(self, samples: Sequence[float]) -> Interval | None:
        """Return the interval after so many samples; None where no look told of any."""
        n = len(samples)
        found = running_interval(samples, self._quantile, self._confidence)
        if found is not None:
            self._seen.append((n, found))
        self._seen = [(at, interval) for at, interval in self._seen if at >= n / 2]
        if not self._seen:
            return None
        lower = max(interval.lower for _, interval in self._seen)
        upper = min(interval.upper for _, interval in self._seen)
        _, last = self._seen[-1]
        if lower > upper:
            del self._seen[:-1]
            return last
        return last._replace(lower=lower, upper=upper)


def _enclosing(
    samples: Sequence[float],
    medians: Sequence[float],
    size: int,
    quantile: float,
    confidence: float,
) -> Interval:
    n = len(medians)
    above, below = surely_above(n, quantile, confidence), surely_below(n, quantile, confidence)
    assert above is not None  # there are `least_samples` of them
    assert below is not None
    if quantile == 0.5:
        ordered, weight = sorted(medians), 1.0
    else:
        # Each block counts with the share of it that is not above a value: in the mean that is the
        # share of all samples, however they depend on each other.
        ordered, weight = sorted(samples[: n * size]), 1.0 / size
    # How many blocks, or shares of blocks, are not above each value.
    under = [*accumulate([weight] * len(ordered))]
    upper = ordered[min(bisect_left(under, below - 1e-9 * n), len(ordered) - 1)]
    # The first value that has more under it than `above`: the quantile is not below it.
    lower = ordered[bisect_left(under, above + 1e-9 * n)]
    wider = _wider(medians) * (ordered[-1] - ordered[0])
    return Interval(max(0.0, lower - wider), upper + wider, n, size)


def quantile_interval(
    samples: Sequence[float], quantile: float, confidence: float
) -> tuple[float, float] | None:
    """Return the interval that holds the quantile with at least `confidence`, or None.

    None where the samples are too few for any two of them to enclose it: see `required_samples`.
    """
    # A tail that is met exactly is met, whatever the rounding of the sums.
    n, tail = len(samples), (1 - confidence) / 2 * (1 + 1e-9)
    ordered = sorted(samples)
    below, rank_low, rank_high = 0.0, 0, None
    # below = P(fewer than rank samples lie under the quantile)
    for rank in range(1, n + 1):
        below += _binomial(n, rank - 1, quantile)
        if below <= tail:
            rank_low = rank
        if rank_high is None and 1 - below <= tail:
            rank_high = rank
    if rank_low == 0 or rank_high is None:
        return None
    return ordered[rank_low - 1], ordered[rank_high - 1]


def required_samples(quantile: float, confidence: float) -> int:
    """Return the smallest number of samples of which two can enclose the quantile."""
    tail = (1 - confidence) / 2
    # One less than the closed form, which rounding may have raised above a tail that is met.
    n = max(1, math.ceil(math.log(tail) / math.log(max(quantile, 1 - quantile))) - 1)
    while quantile_interval(range(n), quantile, confidence) is None:
        n += 1
    return n


def sample_quantile(samples: Sequence[float], quantile: float) -> float:
    """Return the sample quantile, interpolated between neighbours (Hyndman and Fan's type 7)."""
    ordered = sorted(samples)
    position = quantile * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def _binomial(n: int, k: int, p: float) -> float:
    log_ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(log_ways + k * math.log(p) + (n - k) * math.log1p(-p))
