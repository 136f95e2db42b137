"""Measurements: what their intervals say, and that they survive JSON."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_nnscale.measurement import Measurement, Metric, Share

texts = st.text(max_size=8)
amounts = st.integers(0, 2**80) | st.floats(0, 1e18)
measurements = st.builds(
    Measurement,
    metric=st.sampled_from(Metric),
    value=st.none() | amounts,
    lower=st.none() | amounts,
    upper=st.none() | amounts,
    method=texts,
    subject=texts,
    samples=st.lists(st.floats(0, 1e6), max_size=3).map(tuple),
    shares=st.lists(
        st.builds(Share, path=texts, type=texts, own=amounts, total=amounts), max_size=3
    ).map(tuple),
    notes=st.lists(texts, max_size=2).map(tuple),
    reason=texts,
    remedy=texts,
    missing=texts,
)


@given(measurements)
def test_a_measurement_survives_json(measurement: Measurement) -> None:
    """What comes back is equal, and integers stay integers."""
    back = Measurement.from_json(measurement.to_json())
    assert back == measurement
    for name in ("value", "lower", "upper"):
        assert type(getattr(back, name)) is type(getattr(measurement, name))


@given(measurements)
def test_json_is_plain_and_carries_the_version_of_the_definition(measurement: Measurement) -> None:
    """A stored number tells which definition it was counted by."""
    data = json.loads(measurement.to_json())
    assert data["definition"] == f"{measurement.metric.value}/1"
    assert data["metric"] == measurement.metric.value


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_json_does_not_know_is_not_written(value: float) -> None:
    """NaN in a file would be no JSON to any other reader."""
    with pytest.raises(ValueError, match="JSON"):
        Measurement(Metric.LATENCY, value, value, value).to_json()


def test_a_missing_upper_end_is_null() -> None:
    """A lower bound has no upper end, in JSON too."""
    bound = Measurement.at_least(Metric.FLOPS, 5, reason="aten.mv has no formula")
    data = json.loads(bound.to_json())
    assert (data["value"], data["lower"], data["upper"]) == (5, 5, None)
    assert bound.unmeasured


def test_the_three_kinds_differ_by_their_interval() -> None:
    """Exact: the value itself; at least: no upper end; nothing: neither end."""
    exact = Measurement.exact(Metric.PARAMS, 7)
    bound = Measurement.at_least(Metric.PARAMS, 7, reason="why")
    nothing = Measurement.nothing(Metric.PARAMS, reason="why")
    assert (exact.lower, exact.value, exact.upper, exact.unmeasured) == (7, 7, 7, False)
    assert (bound.lower, bound.value, bound.upper, bound.unmeasured) == (7, 7, None, True)
    assert (nothing.lower, nothing.value, nothing.upper, nothing.unmeasured) == (
        None,
        None,
        None,
        True,
    )


@given(measurements)
def test_without_details_only_samples_and_shares_are_gone(measurement: Measurement) -> None:
    """The small copy is judged like the large one."""
    small = measurement.without_details()
    assert (small.samples, small.shares) == ((), ())
    kept = set(measurement.to_dict()) - {"samples", "shares"}
    assert {k: small.to_dict()[k] for k in kept} == {k: measurement.to_dict()[k] for k in kept}


def test_every_metric_has_a_dimension_and_is_exact_or_sampled() -> None:
    """The enum is a closed set: nothing about a metric is left to a default."""
    noisy = {"latency", "energy", "efficiency", "ratio"}
    assert {metric.value for metric in Metric if metric.sampled} == noisy
    assert {metric.value for metric in Metric if metric.more_is_better} == {"efficiency"}
    assert {metric.value for metric in Metric if metric.structural} == {"params", "size"}
    assert all(metric.dimension.whole is not metric.sampled for metric in Metric)
