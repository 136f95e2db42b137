"""Causes: which exact metric changed, and the smallest module that holds the change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from pytest_nnscale.ab.cause import Part, find_causes
from pytest_nnscale.measurement import Measurement, Metric, Share


def flops(own: Mapping[str, int]) -> Measurement:
    shares = tuple(
        Share(path, "M", amount, sum(n for p, n in own.items() if p == path or p.startswith(path)))
        for path, amount in own.items()
    )
    return Measurement.exact(Metric.FLOPS, sum(own.values()), shares=shares)


BASE = {"": 0, "layer1.0": 50, "layer1.1": 50, "layer3.0": 50, "layer3.1": 50, "fc": 10}


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"layer3.1": 80}, [Part("layer3.1", 50, 80)]),
        ({"layer3.0": 65, "layer3.1": 65}, [Part("layer3", 100, 130)]),
        ({"layer3.2": 50}, [Part("layer3.2", 0, 50)]),
        ({"fc": 1}, [Part("fc", 10, 1)]),
        ({"": 7}, []),
        (
            {"layer1.0": 60, "layer3.1": 70, "fc": 20},
            [Part("layer3", 100, 120), Part("fc", 10, 20), Part("layer1", 100, 110)],
        ),
    ],
    ids=["one", "all below one", "a new one", "less", "the model itself", "several"],
)
def test_the_module_is_the_smallest_that_holds_the_change(
    changed: dict[str, int], parts: list[Part]
) -> None:
    """One where most of it is, else the three largest."""
    (cause,) = find_causes([flops(BASE)], [flops({**BASE, **changed})])
    assert (cause.base, cause.head) == (210, sum({**BASE, **changed}.values()))
    assert list(cause.parts) == parts


def test_a_renamed_module_is_named() -> None:
    """It is the one that base does not have."""
    renamed = {("stage3.0" if path == "layer3.0" else path): n for path, n in BASE.items()}
    (cause,) = find_causes([flops(BASE)], [flops({**renamed, "stage3.0": 90})])
    assert cause.parts[0].path.startswith(("stage3", "layer3"))


def test_what_is_equal_is_no_cause() -> None:
    """Also where it moved from one module to another."""
    moved = {**BASE, "layer1.0": 40, "layer3.0": 60}
    assert find_causes([flops(BASE)], [flops(moved)]) == ()


def test_no_module_is_blamed_where_none_changed() -> None:
    """What the modules hold is the same, and the whole is not."""
    before = flops(BASE)
    (cause,) = find_causes([before], [replace(before, value=211, lower=211, upper=211)])
    assert (cause.base, cause.head, cause.parts) == (210, 211, ())


@pytest.mark.parametrize(
    "other",
    [
        Measurement.at_least(Metric.FLOPS, 300, reason="my::op has no formula"),
        Measurement.nothing(Metric.FLOPS, reason="no"),
    ],
)
def test_of_what_is_not_fully_known_no_change_is_known(other: Measurement) -> None:
    """On either side."""
    assert find_causes([flops(BASE)], [other]) == ()
    assert find_causes([other], [flops(BASE)]) == ()


def test_causes_keep_the_order_of_the_metrics() -> None:
    """FLOPs first, as they were measured."""
    before = [flops(BASE), Measurement.exact(Metric.PARAMS, 3)]
    after = [flops({**BASE, "fc": 11}), Measurement.exact(Metric.PARAMS, 4)]
    assert [cause.metric for cause in find_causes(before, after)] == [Metric.FLOPS, Metric.PARAMS]
    assert find_causes(before, after)[1].parts == ()
