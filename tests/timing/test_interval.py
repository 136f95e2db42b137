"""The interval of a quantile: against exact binomials, by simulation, and what it never does."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_nnscale.timing import interval as interval_room
from pytest_nnscale.timing.blocks import medians_of_blocks
from pytest_nnscale.timing.interval import (
    Looks,
    quantile_interval,
    required_samples,
    running_interval,
    sample_quantile,
)
from pytest_nnscale.timing.sequence import least_samples

amounts = st.floats(-1e9, 1e9).map(lambda x: round(x, 3))
several = st.lists(amounts, min_size=1, max_size=60)
quantiles = st.floats(0.01, 0.99)
confidences = st.floats(0.5, 0.999)


def exactly(number: float) -> Fraction:
    """Return the decimal that was written, not the binary number next to it."""
    return Fraction(str(number))


def fewer_than(n: int, quantile: float) -> list[Fraction]:
    """Return for each rank P(fewer than that many of n samples lie below the quantile), exactly."""
    p, of = exactly(quantile).as_integer_ratio()
    ways = (math.comb(n, k) * p**k * (of - p) ** (n - k) for k in range(n + 1))
    return [Fraction(upto, of**n) for upto in itertools.accumulate(ways, initial=0)]


def ranks(n: int, quantile: float, confidence: float) -> tuple[int, int] | None:
    """Return which of n ordered samples are the ends, counted from one."""
    found = quantile_interval(range(1, n + 1), quantile, confidence)
    return None if found is None else (int(found[0]), int(found[1]))


@pytest.mark.parametrize(
    ("n", "low", "high"),
    [(6, 1, 6), (9, 2, 8), (10, 2, 9), (20, 6, 15), (25, 8, 18), (30, 10, 21), (100, 40, 61)],
)
def test_the_median_at_95_percent_has_the_ranks_of_the_sign_test(
    n: int, low: int, high: int
) -> None:
    """They are printed in the tables of textbooks."""
    assert ranks(n, 0.5, 0.95) == (low, high)


@pytest.mark.parametrize("confidence", [0.6, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("quantile", [0.05, 0.3, 0.5, 0.95])
@pytest.mark.parametrize("n", [1, 7, 8, 60, 151])
def test_each_end_is_the_tightest_that_the_exact_binomial_allows(
    n: int, quantile: float, confidence: float
) -> None:
    """A tail holds half of the doubt at most, and one rank further in would hold more."""
    tail = (1 - exactly(confidence)) / 2
    below = fewer_than(n, quantile)
    lows = [rank for rank in range(1, n + 1) if below[rank] <= tail]
    highs = [rank for rank in range(1, n + 1) if 1 - below[rank] <= tail]
    expected = (max(lows), min(highs)) if lows and highs else None
    assert ranks(n, quantile, confidence) == expected


def test_a_thousand_samples_lose_nothing_to_rounding() -> None:
    """The ways to choose 500 of 1000 have 300 digits."""
    low, high = ranks(1000, 0.5, 0.99) or (0, 0)
    below, tail = fewer_than(1000, 0.5), Fraction(1, 200)
    assert below[low] <= tail < below[low + 1]
    assert low + high == 1001


@pytest.mark.parametrize(
    ("quantile", "confidence", "n"),
    [
        (0.5, 0.9, 5),
        (0.5, 0.95, 6),
        (0.5, 0.99, 8),
        (0.9, 0.95, 36),
        (0.95, 0.95, 72),
        (0.95, 0.99, 104),
        (0.05, 0.99, 104),
        (0.99, 0.99, 528),
    ],
)
def test_required_samples_are_the_fewest_that_enclose_the_quantile(
    quantile: float, confidence: float, n: int
) -> None:
    """All on one side has the probability max(q, 1 - q)^n: with one sample less there is none."""
    assert required_samples(quantile, confidence) == n
    one_sided = max(exactly(quantile), 1 - exactly(quantile))
    tail = (1 - exactly(confidence)) / 2
    assert one_sided**n <= tail < one_sided ** (n - 1)
    assert ranks(n, quantile, confidence) is not None
    assert ranks(n - 1, quantile, confidence) is None


@pytest.mark.parametrize(("confidence", "n"), [(0.75, 3), (0.875, 4), (0.96875, 6)])
def test_a_tail_that_is_met_exactly_is_met(confidence: float, n: int) -> None:
    """Half to the power of n is the tail itself, with no rounding in either."""
    assert required_samples(0.5, confidence) == n


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda r: r.random(), lambda q: q),
        (lambda r: r.expovariate(1), lambda q: -math.log(1 - q)),
        (lambda r: r.paretovariate(0.5), lambda q: (1 - q) ** -2),
    ],
    ids=["uniform", "exponential", "pareto, without a mean"],
)
@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_the_truth_is_inside_as_often_as_computed_whatever_the_distribution(
    draw: Callable[[random.Random], float], truth: Callable[[float], float], quantile: float
) -> None:
    """Two thousand simulated runs of sixty calls: at least the confidence, and no more than due."""
    n, confidence, runs, r = 60, 0.8, 2000, random.Random(20)
    low, high = ranks(n, quantile, confidence) or (0, 0)
    below = fewer_than(n, quantile)
    due = float(below[high] - below[low])
    inside = 0
    for _ in range(runs):
        ends = quantile_interval([draw(r) for _ in range(n)], quantile, confidence)
        inside += ends is not None and ends[0] <= truth(quantile) <= ends[1]
    assert due >= confidence
    assert abs(inside / runs - due) < 4 * math.sqrt(due * (1 - due) / runs)


def test_equal_samples_have_an_interval_of_no_width() -> None:
    """A clock of coarse steps gives many of them."""
    assert quantile_interval([2.0] * 8, 0.5, 0.99) == (2.0, 2.0)


@given(several, quantiles, confidences)
def test_the_ends_are_samples_in_order(
    samples: list[float], quantile: float, confidence: float
) -> None:
    """Nothing is said of what lies beyond the slowest call."""
    found = quantile_interval(samples, quantile, confidence)
    if found is not None:
        assert found[0] in samples
        assert found[1] in samples
        assert min(samples) <= found[0] <= found[1] <= max(samples)


@given(several, quantiles, confidences)
def test_the_interval_holds_the_sample_quantile(
    samples: list[float], quantile: float, confidence: float
) -> None:
    """The value that is reported is never outside of its own interval."""
    found = quantile_interval(samples, quantile, confidence)
    if found is not None:
        assert found[0] <= sample_quantile(samples, quantile) <= found[1]


@given(several, quantiles, confidences, confidences)
def test_more_confidence_never_narrows_it(
    samples: list[float], quantile: float, one: float, other: float
) -> None:
    """Who wants to be surer gets the same interval, a wider one, or none."""
    inner = quantile_interval(samples, quantile, min(one, other))
    outer = quantile_interval(samples, quantile, max(one, other))
    if outer is not None:
        assert inner is not None
        assert outer[0] <= inner[0] <= inner[1] <= outer[1]


@given(several, quantiles, confidences, st.randoms())
def test_the_order_of_the_samples_does_not_matter(
    samples: list[float], quantile: float, confidence: float, r: random.Random
) -> None:
    """And they are left as they were."""
    shuffled = samples.copy()
    r.shuffle(shuffled)
    as_given = shuffled.copy()
    found = quantile_interval(shuffled, quantile, confidence)
    assert found == quantile_interval(samples, quantile, confidence)
    assert sample_quantile(shuffled, quantile) == sample_quantile(samples, quantile)
    assert shuffled == as_given


@given(several, quantiles, confidences)
def test_it_follows_any_increasing_change_of_scale(
    samples: list[float], quantile: float, confidence: float
) -> None:
    """No assumption on the distribution: seconds or their cubes, the same calls are the ends."""
    found = quantile_interval(samples, quantile, confidence)
    cubed = quantile_interval([s**3 for s in samples], quantile, confidence)
    assert cubed == (None if found is None else (found[0] ** 3, found[1] ** 3))


@given(quantiles, confidences)
def test_required_samples_have_an_interval_and_one_less_has_none(
    quantile: float, confidence: float
) -> None:
    """So that a meter which took them always has something to say."""
    n = required_samples(quantile, confidence)
    assert ranks(n, quantile, confidence) is not None
    assert ranks(n - 1, quantile, confidence) is None


@pytest.mark.parametrize(
    ("samples", "quantile", "expected"),
    [
        ([3.0], 0.5, 3.0),
        ([3.0], 0.95, 3.0),
        ([1.0, 2.0], 0.5, 1.5),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([1.0, 2.0, 3.0, 4.0], 0.25, 1.75),
        ([0.0, 10.0], 0.95, 9.5),
        ([1.0, 2.0, 9.0], 0.0, 1.0),
        ([1.0, 2.0, 9.0], 1.0, 9.0),
    ],
)
def test_the_sample_quantile_is_interpolated(
    samples: list[float], quantile: float, expected: float
) -> None:
    """Between the two neighbours, in proportion."""
    assert sample_quantile(samples, quantile) == pytest.approx(expected)


@given(st.lists(amounts, min_size=2, max_size=30), st.integers(1, 99))
def test_the_sample_quantile_is_that_of_the_standard_library(
    samples: list[float], percent: int
) -> None:
    """Its inclusive method is Hyndman and Fan's type 7 too."""
    expected = statistics.quantiles(samples, n=100, method="inclusive")[percent - 1]
    found = sample_quantile(samples, percent / 100)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-3)


def dependent(r: random.Random, n: int, correlation: float) -> list[float]:
    """Return skewed, correlated durations: the exponential of an AR(1) process."""
    state, found = r.gauss(0, 1), []
    for _ in range(n):
        state = correlation * state + math.sqrt(1 - correlation**2) * r.gauss(0, 1)
        found.append(math.exp(0.2 * state))
    return found


def decides_wrongly(samples: list[float], quantile: float, truth_s: float) -> bool:
    """Tell whether any look at more and more samples puts the quantile elsewhere."""
    looks, n = Looks(quantile, 0.99), least_samples(quantile, 0.99)
    while n <= len(samples):
        interval = looks.look(samples[:n])
        if interval is not None and not interval.lower <= truth_s <= interval.upper:
            return True
        n = max(n + 1, int(1.1 * n))
    return False


def wrong_of(runs: int, *, quantile: float, correlation: float, n: int = 600) -> int:
    """Return how many of some runs decide wrongly at any look."""
    r = random.Random(5)
    truth_s = math.exp(0.2 * statistics.NormalDist().inv_cdf(quantile))
    return sum(
        decides_wrongly(dependent(r, n, correlation), quantile, truth_s) for _ in range(runs)
    )


# Of 200 runs at most 2: were one in twenty wrong, that would come about once in 400 times.
RUNS, ALLOWED = 200, 2


@pytest.mark.parametrize("correlation", [0.0, 0.9])
@pytest.mark.parametrize("quantile", [0.5, 0.95])
def test_stopping_when_it_looks_decided_is_hardly_ever_wrong(
    quantile: float, correlation: float
) -> None:
    """At most one in a hundred, also where neighbours correlate by 0.9."""
    assert wrong_of(RUNS, quantile=quantile, correlation=correlation) <= ALLOWED


@pytest.mark.parametrize(
    ("name", "value"),
    [("CORRELATED", math.inf), ("CORRELATED", 0.5), ("_TELLING", 0)],
    ids=["without blocks", "blocks that correlate by half", "few blocks held to be sure"],
)
def test_the_simulation_finds_a_rule_that_is_too_loose(
    monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    """The test above can fail: by each part of the rule that is taken away."""
    monkeypatch.setattr(interval_room, name, value)
    assert wrong_of(RUNS, quantile=0.5, correlation=0.9) > 2 * ALLOWED


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.9])
@pytest.mark.parametrize("quantile", [0.5, 0.95])
def test_longer_runs_are_hardly_ever_wrong(quantile: float, correlation: float) -> None:
    """There is more time to be wrong in."""
    assert wrong_of(600, quantile=quantile, correlation=correlation, n=1500) <= 6


def test_independent_samples_are_their_own_blocks() -> None:
    """And the interval becomes narrower the more there are."""
    r = random.Random(2)
    samples = [r.uniform(1, 2) for _ in range(2000)]
    widths = []
    for n in (100, 400, 2000):
        found = Looks(0.5, 0.99).look(samples[:n])
        assert found is not None
        assert found.block_size <= 3
        widths.append(found.upper - found.lower)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.1


def test_correlated_samples_have_larger_blocks() -> None:
    """Some sixty of an AR(1) process of 0.9."""
    found = running_interval(dependent(random.Random(8), 5000, 0.9), 0.5, 0.99)
    assert found is not None
    assert 15 <= found.block_size <= 127
    assert found.blocks == 5000 // found.block_size


def test_a_drift_is_held_to_go_on() -> None:
    """Whatever the size of a block, its neighbour is like it: what comes next may be as far away."""
    found = running_interval([1.0 + n / 1000 for n in range(1000)], 0.5, 0.99)
    assert found is not None
    assert found.drifting
    assert found.lower == 0.0
    assert found.upper > 3.0


@pytest.mark.parametrize(("n", "quantile"), [(12, 0.5), (47, 0.5), (150, 0.95)])
def test_few_samples_that_drift_decide_on_limits_far_away_alone(n: int, quantile: float) -> None:
    """Calls of about a second are no calls of two milliseconds, however they drift."""
    spread = 0.001 * (n - 1)
    found = running_interval([1.0 + k / 1000 for k in range(n)], quantile, 0.99)
    assert found is not None
    assert found.drifting
    assert found.lower <= 1 - 5 * spread or found.lower == 0
    assert found.upper >= 1 + 6 * spread
    assert found.upper < 1 + 8 * spread


@pytest.mark.parametrize(("stretches", "spreads"), [(2, 6.0), (4, 3.0), (6, 0.75)])
def test_the_more_often_a_drift_came_back_the_less_far_it_may_reach(
    stretches: int, spreads: float
) -> None:
    """A machine that went up and down many times has shown how far it goes."""
    wave = [1 + 0.1 * math.sin(math.pi * stretches * (n + 0.5) / 1000) for n in range(1000)]
    found = running_interval(wave, 0.5, 0.99)
    assert found is not None
    assert found.drifting
    medians = medians_of_blocks(wave, found.block_size)
    most, least = max(medians), min(medians)
    assert found.upper == pytest.approx(most + spreads * (most - least))
    assert found.lower == pytest.approx(max(0.0, least - spreads * (most - least)))


@pytest.mark.parametrize("n", [0, 1, 11])
def test_fewer_than_the_least_number_have_none(n: int) -> None:
    """Twelve for a median at 99 %."""
    assert running_interval([1.0] * n, 0.5, 0.99) is None
    assert running_interval([1.0] * 12, 0.5, 0.99) is not None


def test_few_blocks_are_held_to_be_less_sure() -> None:
    """Of twelve it cannot be told whether they depend on each other: all of them and more."""
    samples = [1.0, 1.2, 1.1, 1.15, 1.05, 1.12, 1.01, 1.19, 1.08, 1.16, 1.03, 1.11]
    found = running_interval(samples, 0.5, 0.99)
    assert found is not None
    assert found.upper == pytest.approx(1.2 + 1.5 * 0.2)
    assert found.lower == pytest.approx(1.0 - 1.5 * 0.2)


def test_looks_that_disagree_are_forgotten_for_the_last() -> None:
    """A machine that became twice as slow is measured as it is now."""
    r = random.Random(6)
    looks = Looks(0.5, 0.99)
    before = [r.uniform(0.99, 1.01) for _ in range(60)]
    first = looks.look(before)
    assert first is not None
    assert first.upper < 1.1
    found = None
    for n in range(70, 2000, 40):
        now = [*before, *(r.uniform(1.99, 2.01) for _ in range(n))]
        found = looks.look(now) or found
    assert found is not None
    assert found.lower > 1.5
