"""The sequence of bounds: against exact sums, at every n at once, and how tight it is."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_nnscale.timing.sequence import (
    least_samples,
    log_wealth,
    surely_above,
    surely_below,
)

quantiles = st.floats(0.02, 0.98)
confidences = st.floats(0.6, 0.999)


@pytest.mark.parametrize("quantile", [0.5, 0.1, 0.95])
@pytest.mark.parametrize("n", [1, 5, 40])
def test_the_wealth_of_a_fair_game_is_one(n: int, quantile: float) -> None:
    """Summed over all outcomes, each by its probability: so it is a martingale that starts at 1."""
    mean = math.fsum(
        math.comb(n, k)
        * quantile**k
        * (1 - quantile) ** (n - k)
        * math.exp(log_wealth(k, n, quantile))
        for k in range(n + 1)
    )
    assert mean == pytest.approx(1.0)


@given(st.integers(1, 500), quantiles, confidences)
def test_the_bounds_are_where_the_wealth_reaches_its_goal(
    n: int, quantile: float, confidence: float
) -> None:
    """1 / (1 - confidence), by Ville's inequality; within them it is less."""
    goal = -math.log(1 - confidence)
    for bound, outside in (
        (surely_below(n, quantile, confidence), float(n)),
        (surely_above(n, quantile, confidence), 0.0),
    ):
        if bound is None:
            assert log_wealth(outside, n, quantile) < goal
        else:
            assert log_wealth(bound, n, quantile) == pytest.approx(goal, abs=1e-4)
            assert abs(bound - n * quantile) <= abs(outside - n * quantile) + 1e-6


@given(st.integers(1, 300), quantiles, confidences)
def test_both_sides_are_mirror_images(n: int, quantile: float, confidence: float) -> None:
    """What lies above a quantile lies below that of the rest."""
    below, above = surely_below(n, 1 - quantile, confidence), surely_above(n, quantile, confidence)
    assert (below is None) == (above is None)
    if below is not None and above is not None:
        assert above == pytest.approx(n - below)


@pytest.mark.parametrize(
    ("quantile", "confidence", "n"),
    [(0.5, 0.99, 12), (0.5, 0.9, 8), (0.9, 0.99, 55), (0.95, 0.99, 104), (0.99, 0.99, 478)],
)
def test_the_fewest_samples_are_known(quantile: float, confidence: float, n: int) -> None:
    """They are in the documentation: nobody waits for a p99 of a minute's call unwarned."""
    assert least_samples(quantile, confidence) == n


def test_a_hundred_samples_tell_a_median_as_closely_as_any_mixture_can() -> None:
    """Half of a spread on each side: ranks 32 to 68."""
    assert surely_below(100, 0.5, 0.99) == pytest.approx(67.8, abs=0.1)
    assert surely_above(100, 0.5, 0.99) == pytest.approx(32.2, abs=0.1)


@pytest.mark.parametrize("quantile", [0.5, 0.95])
def test_looking_at_every_sample_is_wrong_in_one_of_a_hundred_at_most(quantile: float) -> None:
    """A thousand looks each, which would be wrong a third of the time with a fixed interval."""
    r, runs, wrong = random.Random(11), 400, 0
    for _ in range(runs):
        below = 0
        for n in range(1, 1001):
            below += r.random() < quantile
            high, low = surely_below(n, quantile, 0.99), surely_above(n, quantile, 0.99)
            if (high is not None and below >= high) or (low is not None and below <= low):
                wrong += 1
                break
    assert wrong <= 0.01 * runs + 3 * math.sqrt(0.01 * runs)
