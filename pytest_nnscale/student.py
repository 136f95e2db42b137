"""Student's t distribution: the quantiles that an interval of a mean takes."""

from __future__ import annotations

import math


def student_quantile(probability: float, freedom: int) -> float:
    """Return what a t variable with some degrees of freedom stays below with a probability >= 1/2.

    Source: M. Abramowitz and I. A. Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4:
    the probability of |t| for whole degrees of freedom is a finite sum. It is inverted by bisection.
    """
    if not (0.5 <= probability < 1 and freedom >= 1):
        raise ValueError(f"no quantile {probability} of t with {freedom} degrees of freedom")
    between = 2 * probability - 1
    # In the angle whose tangent is t / sqrt(freedom) the sum needs no care with large numbers.
    low, high = 0.0, math.pi / 2
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return math.sqrt(freedom) * math.tan(low)
        if _probability_between(middle, freedom) < between:
            low = middle
        else:
            high = middle


def _probability_between(angle: float, freedom: int) -> float:
    """Return the probability of -t to t."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
