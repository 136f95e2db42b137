"""The interval of a quantile, with no assumption on how the samples are distributed.

Source: H. A. David and H. N. Nagaraja, Order Statistics, 3rd edition, section 7.1: the number of
samples below the q-quantile is binomial(n, q), so two order statistics enclose it with a
probability that depends on n and q alone. It holds for independent samples whose number was fixed
before the first was taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


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
