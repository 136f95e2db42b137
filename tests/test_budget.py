"""Budgets: the truth table of judge(), and verdicts that survive JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_nnscale.budget import Budget, Outcome, Verdict, judge
from pytest_nnscale.measurement import Measurement, Metric, Share

LIMIT = 100
ends = st.none() | st.integers(0, 200) | st.floats(0, 200)


def judged(lower: float | None, upper: float | None) -> Outcome:
    return judge(Budget(Metric.FLOPS, LIMIT), Measurement(Metric.FLOPS, lower, lower, upper))


@pytest.mark.parametrize(
    ("lower", "upper", "outcome"),
    [
        (98, 99, Outcome.WITHIN),
        (98, 100, Outcome.WITHIN),
        (100, 100, Outcome.WITHIN),
        (0, 0, Outcome.WITHIN),
        (None, 100, Outcome.WITHIN),
        (99, 101, Outcome.INCONCLUSIVE),
        (100, 101, Outcome.INCONCLUSIVE),
        (100, 100.0000001, Outcome.INCONCLUSIVE),
        (None, 101, Outcome.UNMEASURED),
        (80, 120, Outcome.INCONCLUSIVE),
        (79.9, 101, Outcome.UNMEASURED),
        (99, 120.1, Outcome.UNMEASURED),
        (0, 1000, Outcome.UNMEASURED),
        (None, 121, Outcome.UNMEASURED),
        (101, 101, Outcome.OVER),
        (101, 102, Outcome.OVER),
        (100.0000001, 101, Outcome.OVER),
        (101, None, Outcome.OVER),
        (100, None, Outcome.UNMEASURED),
        (0, None, Outcome.UNMEASURED),
        (None, None, Outcome.UNMEASURED),
    ],
)
def test_the_place_of_the_interval_decides(
    lower: float | None, upper: float | None, outcome: Outcome
) -> None:
    """Below or at the limit, across it (by no more than a fifth), above it, or without an end."""
    assert judged(lower, upper) is outcome


def test_exactly_at_the_limit_is_within() -> None:
    """A budget is the most that is allowed."""
    budget = Budget(Metric.PARAMS, 25_557_032)
    assert judge(budget, Measurement.exact(Metric.PARAMS, 25_557_032)) is Outcome.WITHIN
    assert judge(budget, Measurement.exact(Metric.PARAMS, 25_557_033)) is Outcome.OVER


def test_a_lower_bound_above_the_limit_is_over_although_the_rest_is_unknown() -> None:
    """What is known is too much already."""
    known = Measurement.at_least(Metric.FLOPS, LIMIT + 1, reason="aten.mv has no formula")
    assert judge(Budget(Metric.FLOPS, LIMIT), known) is Outcome.OVER


@pytest.mark.parametrize(("lower", "upper"), [(1, 2), (150, 160), (99, 101)])
def test_what_was_disturbed_is_inconclusive(lower: float, upper: float) -> None:
    """A GPU that throttled says nothing of the code, on either side."""
    found = Measurement(Metric.LATENCY, lower, lower, upper, disturbed="the GPU throttled")
    assert judge(Budget(Metric.LATENCY, LIMIT), found) is Outcome.INCONCLUSIVE


def mirrored(lower: float | None, upper: float | None) -> Outcome:
    """Judge an efficiency whose ends lie as far below the limit as others lie above theirs."""
    turn = (None if end is None else 2 * LIMIT - end for end in (upper, lower))
    low, high = turn
    return judge(Budget(Metric.EFFICIENCY, LIMIT), Measurement(Metric.EFFICIENCY, low, low, high))


@given(ends, ends)
def test_where_more_is_better_the_rule_is_its_own_mirror_image(
    lower: float | None, upper: float | None
) -> None:
    """What lies above a most is judged as what lies below a least, and the other way round."""
    # Turned around and back, so that both sides are rounded alike.
    lower, upper = (None if e is None else 2 * LIMIT - (2 * LIMIT - e) for e in (lower, upper))
    assert mirrored(lower, upper) is judged(lower, upper)


@pytest.mark.parametrize(
    ("lower", "upper", "outcome"),
    [
        (0.4, 0.4, Outcome.WITHIN),
        (0.4, 0.9, Outcome.WITHIN),
        (0.5, None, Outcome.WITHIN),
        (0.39, 0.41, Outcome.INCONCLUSIVE),
        (0.39, 0.4, Outcome.INCONCLUSIVE),
        (0.3, 0.41, Outcome.UNMEASURED),
        (0.33, None, Outcome.UNMEASURED),
        (0.3, None, Outcome.UNMEASURED),
        (0.2, 0.39, Outcome.OVER),
        (None, 0.39, Outcome.OVER),
        (None, 0.41, Outcome.UNMEASURED),
        (None, None, Outcome.UNMEASURED),
    ],
)
def test_a_least_has_to_be_reached(
    lower: float | None, upper: float | None, outcome: Outcome
) -> None:
    """An efficiency is kept where all of its interval is at the limit or above."""
    found = Measurement(Metric.EFFICIENCY, lower, lower, upper)
    assert judge(Budget(Metric.EFFICIENCY, 0.4), found) is outcome


def test_a_disturbed_efficiency_is_inconclusive() -> None:
    """On either side, as for any other metric."""
    for value in (0.1, 0.9):
        found = Measurement(Metric.EFFICIENCY, value, value, value, disturbed="the GPU throttled")
        assert judge(Budget(Metric.EFFICIENCY, 0.4), found) is Outcome.INCONCLUSIVE


@given(ends)
def test_what_has_no_upper_end_is_never_within(lower: float | None) -> None:
    """Unknown work is never silently zero."""
    assert judged(lower, None) in (Outcome.OVER, Outcome.UNMEASURED)


@given(ends, ends, ends)
def test_within_means_that_every_value_of_the_interval_is_allowed(
    lower: float | None, upper: float | None, truth: float | None
) -> None:
    """WITHIN and OVER are never wrong about a truth inside the interval."""
    above = truth is not None and truth >= (lower if lower is not None else 0)
    if not above or truth is None or (upper is not None and truth > upper):
        return
    outcome = judged(lower, upper)
    assert outcome is not Outcome.WITHIN or truth <= LIMIT
    assert outcome is not Outcome.OVER or truth > LIMIT


def test_large_whole_numbers_are_compared_as_whole_numbers() -> None:
    """One FLOP over a budget of 2^60 is over: nothing becomes a float on the way."""
    budget = Budget(Metric.FLOPS, 2**60)
    assert judge(budget, Measurement.exact(Metric.FLOPS, 2**60 + 1)) is Outcome.OVER


def test_a_budget_does_not_judge_another_metric() -> None:
    """Two numbers of different meaning are never compared."""
    with pytest.raises(ValueError, match="a flops budget cannot judge params"):
        judge(Budget(Metric.FLOPS, 1), Measurement.exact(Metric.PARAMS, 1))


texts = st.text(max_size=8)
verdicts = st.builds(
    Verdict,
    budget=st.builds(
        Budget,
        metric=st.sampled_from(Metric),
        limit=st.integers(1, 2**80) | st.floats(1e-9, 1e18),
        phase=st.sampled_from(["inference", "training"]),
        device=st.sampled_from([None, "cpu", "cuda:0"]),
        quantile=st.none() | st.floats(0.01, 0.99),
        trainable=st.booleans(),
        origin=texts,
        own=st.booleans(),
    ),
    measurement=st.builds(
        Measurement,
        metric=st.sampled_from(Metric),
        value=ends,
        lower=ends,
        upper=ends,
        subject=texts,
        samples=st.lists(st.floats(0, 9), max_size=2).map(tuple),
        shares=st.just((Share("fc", "Linear", 1, 2),)) | st.just(()),
        reason=texts,
    ),
    outcome=st.sampled_from(Outcome),
    call=st.integers(0, 9),
)


@given(verdicts)
def test_a_verdict_survives_json(verdict: Verdict) -> None:
    """This is how verdicts leave an xdist worker."""
    assert Verdict.from_dict(json.loads(json.dumps(verdict.to_dict(), allow_nan=False))) == verdict


@given(verdicts)
def test_a_verdict_without_details_is_the_same_verdict(verdict: Verdict) -> None:
    """Samples and shares stay behind; budget, numbers and outcome travel."""
    small = verdict.without_details()
    assert (small.budget, small.outcome, small.call) == (
        verdict.budget,
        verdict.outcome,
        verdict.call,
    )
    assert small.measurement == verdict.measurement.without_details()


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"limit": 2}, True),
        ({"origin": "the mark of test_it.py"}, True),
        ({"own": False}, True),
        ({"metric": Metric.MACS}, False),
        ({"phase": "training"}, False),
        ({"device": "cuda"}, False),
        ({"quantile": 0.95}, False),
        ({"trainable": True}, False),
    ],
)
def test_budgets_are_equal_where_they_speak_of_the_same_number(
    change: dict[str, object], same: bool
) -> None:
    """The limit and where it was written are not part of what is limited."""
    first = {"metric": Metric.PARAMS, "limit": 1}
    assert (Budget(**first).key == Budget(**{**first, **change}).key) is same


def test_qualifiers_name_what_is_not_the_default() -> None:
    """A reader sees p50 and p95 side by side."""
    assert Budget(Metric.LATENCY, 1).qualifiers == ""
    full = Budget(Metric.LATENCY, 1, "training", "cuda:0", 0.95)
    assert full.qualifiers == "training, cuda:0, p95"
    assert Budget(Metric.PARAMS, 1, trainable=True).qualifiers == "trainable"
