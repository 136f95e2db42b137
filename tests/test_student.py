"""Student's quantiles, against printed tables."""

from __future__ import annotations

import pytest

from pytest_nnscale.student import student_quantile

# NIST/SEMATECH e-Handbook of Statistical Methods, table 1.3.6.7.2.
TABLE = {
    1: (3.078, 6.314, 12.706, 31.821, 63.657, 318.313),
    2: (1.886, 2.920, 4.303, 6.965, 9.925, 22.327),
    5: (1.476, 2.015, 2.571, 3.365, 4.032, 5.893),
    10: (1.372, 1.812, 2.228, 2.764, 3.169, 4.143),
    25: (1.316, 1.708, 2.060, 2.485, 2.787, 3.450),
    100: (1.290, 1.660, 1.984, 2.364, 2.626, 3.174),
}
PROBABILITIES = (0.90, 0.95, 0.975, 0.99, 0.995, 0.999)


@pytest.mark.parametrize("freedom", TABLE)
def test_quantiles_are_those_of_the_tables(freedom: int) -> None:
    """For odd and even degrees of freedom, to all printed digits."""
    found = [student_quantile(p, freedom) for p in PROBABILITIES]
    assert found == pytest.approx(TABLE[freedom], abs=1e-3, rel=2e-5)


def test_the_median_is_zero() -> None:
    """It is symmetric."""
    assert student_quantile(0.5, 7) == 0


@pytest.mark.parametrize(("probability", "freedom"), [(1.0, 5), (0.4, 5), (0.99, 0)])
def test_what_is_no_quantile_is_refused(probability: float, freedom: int) -> None:
    """It would be infinite, or of the other side, or of no distribution."""
    with pytest.raises(ValueError, match="no quantile"):
        student_quantile(probability, freedom)
