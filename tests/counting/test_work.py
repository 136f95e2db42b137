"""What a count is no measurement of is told, and never passes for a small number."""

import pytest
import torch
from torch import nn

from pytest_nnscale.budget import Phase
from pytest_nnscale.counting.counter import Count, Counter, Uncounted
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters.table import EXECUTED
from pytest_nnscale.meters.work import measure_work


def counted(run) -> Count:
    with Counter() as counter:
        run()
    return counter.count()


def measured(count: Count, phase: Phase = "inference") -> list[Measurement]:
    return [measure_work(metric, count, phase, subject="test") for metric in EXECUTED]


@pytest.fixture(scope="module")
def count() -> Count:
    model = nn.Linear(2, 2)
    return counted(lambda: model(torch.ones(1, 2)).sum().backward())


@pytest.mark.parametrize("phase", ["inference", "training"])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"raised": ("Encoder",)}, "Encoder raised half way, so only part of its work was seen"),
        ({"threads": ("pool_0",)}, "the test started threads (pool_0), where nothing is seen"),
        (
            {"processes": ("worker",)},
            "the test gave work to processes (worker), where nothing is seen",
        ),
        ({"operators": 0}, "the call ran no tensor operator"),
    ],
)
def test_count_of_something_else_is_no_measurement(count, changes, reason, phase):
    """Half a call, other threads and processes, and no operator at all measure nothing."""
    assert all(found.lower is not None for found in measured(count, phase))
    for found in measured(count._replace(**changes), phase):
        assert (found.value, found.lower, found.upper) == (None, None, None)
        assert found.reason == reason
        assert found.remedy


def test_model_without_contractions_costs_exactly_nothing():
    """A ReLU has no FLOPs, and that is known."""
    found = measure_work(
        Metric.FLOPS, counted(lambda: torch.ones(3).relu()), "inference", subject=""
    )
    assert (found.lower, found.upper) == (0, 0)


def test_operator_past_the_dispatcher_makes_every_metric_a_lower_bound(count):
    """Kernels and memory of what TorchScript hides are as unknown as its FLOPs."""
    hidden = Uncounted("prim::mkldnn_convolution", "", "Net", 1, "", "count before", False, True)
    for found in measured(count._replace(uncounted=(hidden,))):
        assert found.lower == found.value > 0
        assert found.upper is None
        assert (
            found.reason == "TorchScript hides prim::mkldnn_convolution in Net itself, called once"
        )
    for found in measured(count._replace(uncounted=(hidden._replace(unseen=False),))):
        assert (found.upper is None) is (found.metric in (Metric.FLOPS, Metric.MACS))
