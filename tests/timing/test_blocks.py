"""Blocks of samples: their correlation and their medians."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_nnscale.timing.blocks import lag_correlation, medians_of_blocks

values = st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=50)


def process(n: int, correlation: float, *, seed: int = 1) -> list[float]:
    """Return an AR(1) process of variance one."""
    r, state, found = random.Random(seed), 0.0, []
    for _ in range(n):
        state = correlation * state + (1 - correlation**2) ** 0.5 * r.gauss(0, 1)
        found.append(state)
    return found


@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.5, 0.9])
def test_the_correlation_of_a_long_process_is_found(correlation: float) -> None:
    """To a hundredth or two, of ten thousand values."""
    assert lag_correlation(process(10_000, correlation)) == pytest.approx(correlation, abs=0.03)


def test_of_few_independent_values_it_is_zero_in_the_mean() -> None:
    """The plain one is one n-th too low, and would let dependent values pass."""
    found = [lag_correlation(process(12, 0.0, seed=seed)) for seed in range(1000)]
    assert statistics.fmean(found) == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_equal_values_are_not_correlated(value: float) -> None:
    """Nor are those that differ by the rounding of their sums."""
    assert lag_correlation([value] * 20) == 0.0
    assert lag_correlation([value * (1 + 1e-15 * (n % 3)) for n in range(20)]) == 0.0


@given(values, st.floats(0.1, 10), st.floats(-100, 100))
def test_the_unit_does_not_matter(samples: list[float], scale: float, shift: float) -> None:
    """Seconds or milliseconds, from whatever moment."""
    if statistics.pstdev(samples) > 1e-3 * (max(map(abs, samples)) + 100):
        moved = [scale * each + shift for each in samples]
        assert lag_correlation(moved) == pytest.approx(lag_correlation(samples), abs=1e-6)


@given(values, st.sampled_from([1, 3, 7, 15]))
def test_each_full_block_has_its_median(samples: list[float], size: int) -> None:
    """What is left over at the end is in none."""
    found = medians_of_blocks(samples, size)
    assert found == [
        statistics.median(samples[n * size : (n + 1) * size]) for n in range(len(samples) // size)
    ]
