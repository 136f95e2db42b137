"""The ratio: its interval, what it says, and how often it errs."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_nnscale.ab.ratio import (
    Change,
    Ratio,
    judge_ratio,
    plan_looks,
    ratio_of,
    restarts_to_decide,
)


@pytest.mark.parametrize(
    ("low", "high", "change"),
    [
        (1.0501, 1.2, Change.SLOWER),
        (1.05, 1.2, Change.INCONCLUSIVE),
        (0.8, 1 / 1.0501, Change.FASTER),
        (0.8, 1 / 1.05, Change.INCONCLUSIVE),
        (1 / 1.05, 1.05, Change.SAME),
        (1 / 1.0501, 1.05, Change.INCONCLUSIVE),
        (1 / 1.05, 1.0501, Change.INCONCLUSIVE),
        (1.01, 1.04, Change.SAME),
        (1.01, 1.5, Change.INCONCLUSIVE),
        (0.0, math.inf, Change.INCONCLUSIVE),
    ],
)
def test_the_whole_interval_decides(low: float, high: float, change: Change) -> None:
    """Beyond the threshold on one side, or within it on both; exactly at it is within."""
    assert judge_ratio(Ratio((low + high) / 2, low, high), 0.05) is change


@given(st.floats(0.5, 2.0), st.floats(1.0, 1.5), st.floats(0.001, 0.9))
def test_slower_and_faster_are_mirror_images(low: float, width: float, threshold: float) -> None:
    """Exchange the sides, and the verdict is exchanged."""
    mirrored = {Change.SLOWER: Change.FASTER, Change.FASTER: Change.SLOWER}
    one = judge_ratio(Ratio(low, low, low * width), threshold)
    other = judge_ratio(Ratio(1 / low, 1 / (low * width), 1 / low), threshold)
    borders = [abs(math.log(end) ** 2 - math.log(1 + threshold) ** 2) for end in (low, low * width)]
    assert min(borders) < 1e-9 or other is mirrored.get(one, one)


def test_the_interval_is_students() -> None:
    """Of three restarts, by hand: mean 0.1, spread 0.1 / sqrt(3), t 4.303 at 95 %."""
    ratio = ratio_of([0.0, 0.1, 0.2], error=0.05)
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert ratio == pytest.approx(
        (math.exp(0.1), math.exp(0.1 - half), math.exp(0.1 + half)), rel=1e-6
    )


def test_one_restart_says_nothing() -> None:
    """There is a ratio, and no telling how far it is from the truth."""
    assert ratio_of([0.1], error=0.01) == (math.exp(0.1), 0.0, math.inf)


def test_restarts_beyond_all_measure_have_an_interval() -> None:
    """What has no float is cut off, not raised."""
    ratio = ratio_of([-3.0, 40.0], error=0.001)
    assert 0 <= ratio.low < ratio.value < ratio.high < math.inf


@pytest.mark.parametrize(
    ("least", "most", "restarts"),
    [
        (6, 0, [6]),
        (6, 6, [6]),
        (6, 7, [6, 7]),
        (6, 8, [6, 7, 8]),
        (6, 14, [6, 9, 14]),
        (6, 60, [6, 19, 60]),
    ],
)
def test_looks_are_few_and_spend_the_error_once(least: int, most: int, restarts: list[int]) -> None:
    """From the least number of restarts to the most that time allows; the shares sum to one."""
    looks = plan_looks(least, most)
    assert [look.restarts for look in looks] == restarts
    assert sum(look.share for look in looks) == 1


@pytest.mark.parametrize("least", range(2, 9))
@pytest.mark.parametrize("most", range(25))
def test_no_plan_has_fewer_restarts_than_the_least(least: int, most: int) -> None:
    """Whatever time there is; and every look has more than the one before."""
    restarts = [look.restarts for look in plan_looks(least, most)]
    assert restarts[0] == least
    assert restarts == sorted(set(restarts))


def decide(logs: Sequence[float]) -> Change:
    """Return what a comparison says of some restarts, looking as often as its plan allows."""
    change = Change.INCONCLUSIVE
    for restarts, share in plan_looks(6, len(logs)):
        change = judge_ratio(ratio_of(logs[:restarts], error=0.01 * share), 0.05)
        if change is not Change.INCONCLUSIVE:
            break
    return change


def rates(draw: Callable[[random.Random], float], *, most: int = 14) -> dict[Change, float]:
    """Return how often comparisons come to each verdict, of 2000 with logarithms that are drawn."""
    luck = random.Random(0)
    found = Counter(decide([draw(luck) for _ in range(most)]) for _ in range(2000))
    return {change: found[change] / 2000 for change in Change}


def gaussian(true: float, spread: float) -> Callable[[random.Random], float]:
    return lambda luck: math.log(true) + luck.gauss(0, spread)


def heavy(true: float, spread: float) -> Callable[[random.Random], float]:
    """Every fifth restart meets another load, and is ten times as far off."""
    return lambda luck: math.log(true) + luck.gauss(0, spread) * (10 if luck.random() < 0.2 else 1)


def skewed(true: float, spread: float) -> Callable[[random.Random], float]:
    """Each side is slowed down by now and then: luck has one side, of which ratios have both."""
    return lambda luck: math.log(true) + spread * (luck.expovariate(1) - luck.expovariate(1))


@pytest.mark.parametrize("spread", [0.005, 0.01, 0.03, 0.1, 0.5])
@pytest.mark.parametrize("kind", [gaussian, heavy, skewed])
def test_identical_code_is_called_slower_less_than_once_in_400(
    kind: Callable[[float, float], Callable[[random.Random], float]], spread: float
) -> None:
    """Whatever the noise: a tenth of what the issue allows."""
    found = rates(kind(1.0, spread))
    assert found[Change.SLOWER] <= 1 / 400
    assert found[Change.FASTER] <= 1 / 400


@pytest.mark.parametrize("spread", [0.001, 0.01, 0.03])
def test_what_is_slower_by_just_the_threshold_is_called_slower_once_in_200_at_most(
    spread: float,
) -> None:
    """The interval's error is one in a hundred, half of it on either side, over all looks."""
    assert rates(gaussian(1.05, spread))[Change.SLOWER] <= 1.5 / 200


@pytest.mark.parametrize(
    ("true", "spread", "most", "least_rate"),
    [
        (1.1, 0.01, 10, 0.99),
        (1.1, 0.02, 10, 0.95),
        (1.1, 0.03, 14, 0.95),
        (1.3, 0.03, 6, 0.99),
        (1.3, 0.05, 10, 0.99),
    ],
)
def test_what_is_slower_by_more_is_called_so(
    true: float, spread: float, most: int, least_rate: float
) -> None:
    """A tenth, where restarts differ by the 1 to 3 % that were measured, and 0.3 in any case."""
    found = rates(gaussian(true, spread), most=most)
    assert found[Change.SLOWER] >= least_rate
    assert found[Change.FASTER] == found[Change.SAME] == 0


@pytest.mark.parametrize("spread", [0.005, 0.01, 0.02])
def test_identical_code_is_called_the_same(spread: float) -> None:
    """Not merely inconclusive."""
    assert rates(gaussian(1.0, spread))[Change.SAME] >= 0.95


def test_more_restarts_are_asked_for_where_they_would_decide() -> None:
    """Their number is that at which half the interval is as wide as the way to the border."""
    logs = [0.1 + step for step in (-0.05, 0.05, -0.05, 0.05, -0.05, 0.05)]
    needed = restarts_to_decide(logs, error=0.01, threshold=0.05)
    assert needed is not None
    assert needed > 6
    more = (logs * needed)[:needed]
    assert judge_ratio(ratio_of(more, error=0.01), 0.05) is Change.SLOWER


@pytest.mark.parametrize("logs", [[0.1], [math.log(1.05) - 0.1, math.log(1.05) + 0.1] * 3])
def test_none_are_asked_for_where_they_would_not(logs: list[float]) -> None:
    """Of one restart nothing is known; at the border itself no number is enough."""
    assert restarts_to_decide(logs, error=0.01, threshold=0.05) is None
