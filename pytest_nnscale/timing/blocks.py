"""Samples that depend on their neighbours, put into blocks that hardly do.

A machine that is slow now is slow for the next call, too: each sample says less than one of its
own. Blocks are enlarged until neighbouring ones correlate by less than a tenth; what is said of the
quantile then counts blocks, not samples.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise

CORRELATED = 0.1
_ROUNDING = 1e-9  # values that differ by no more than this are the same


def lag_correlation(values: Sequence[float]) -> float:
    """Return the correlation of neighbouring values, as it would be of many: 1 / n is added.

    Of few independent values the plain one is -1 / n in the mean.
    """
    mean = statistics.fmean(values)
    from_mean = [value - mean for value in values]
    spread = sum(each * each for each in from_mean)
    if spread <= len(values) * (_ROUNDING * mean) ** 2:
        return 0.0
    together = sum(one * other for one, other in pairwise(from_mean))
    return together / spread + 1 / len(values)


def medians_of_blocks(samples: Sequence[float], size: int) -> list[float]:
    """Return the median of each full block of an odd size.

    Half of them lie below the median of the samples, exactly so where these are independent or
    rise and fall as a Gaussian process does, whatever their distribution.
    """
    return [
        sorted(samples[start : start + size])[size // 2]
        for start in range(0, len(samples) - size + 1, size)
    ]
