"""What is seen of a call that is made for real: above all, where it ran."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from pytest_nnscale.called import observe_apart, observe_call
from pytest_nnscale.observation import device_of
from pytest_nnscale.observing import observe
from pytest_nnscale.workload import Workload

X = torch.ones(2, 4)


class Offloaded(nn.Module):
    """Its first parameter waits on the CPU, and it works elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = nn.Parameter(torch.ones(3))
        self.layer = nn.Linear(4, 4, device="meta")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.to("meta")) if x.device.type != "meta" else self.layer(x)


def closure() -> Callable[[], object]:
    layer, x = nn.Linear(4, 4, device="meta"), torch.ones(2, 4, device="meta")
    return lambda: layer(x)


@pytest.mark.parametrize(
    ("workload", "device"),
    [
        (Workload(closure()), "meta"),
        (Workload(Offloaded(), (X.to("meta"),)), "meta"),
        (Workload(lambda x: nn.Linear(4, 4, device="meta")(x.to("meta")), (X,)), "meta"),
        (Workload(nn.Linear(4, 4), (X,)), "cpu"),
        (Workload(lambda: None), "cpu"),
    ],
    ids=["closure", "offloaded", "moved", "model", "nothing"],
)
def test_the_device_is_where_the_operators_ran(workload: Workload, device: str) -> None:
    """Not where the first parameter or input is: a clock of another device would not wait."""
    assert observe_call(workload)[1].device == device
    assert observe_apart(workload).device == device


@pytest.mark.parametrize("closed", [True, False])
def test_a_profile_is_timed_where_the_operators_ran(*, closed: bool) -> None:
    """Also a model on meta, which is traced as if it were on the CPU."""
    layer, x = nn.Linear(4, 4, device="meta"), torch.ones(2, 4, device="meta")
    workload = Workload(lambda: layer(x)) if closed else Workload(layer, (x,))
    assert observe(workload, runs=True).device == "meta"


@pytest.mark.parametrize(
    ("devices", "found"),
    [
        (("cpu", "cuda:0"), "cuda:0"),
        (("cuda:1", "cuda:0", "cpu"), "cuda:1"),
        (("meta", "cuda:0"), "cuda:0"),
        (("meta", "cpu"), "cpu"),
        (("meta",), "meta"),
        ((), "mps"),
    ],
)
def test_of_several_devices_the_first_beside_the_host_counts(
    devices: tuple[str, ...], found: str
) -> None:
    """The host waits for it; without any operator it is where the model lives."""
    assert device_of(devices, "mps") == found


def test_what_is_observed_apart_leaves_nothing() -> None:
    """Though it runs for real."""
    bn = nn.BatchNorm1d(4)
    seen = observe_apart(Workload(lambda x: bn(x), (X,)))
    assert bn.num_batches_tracked == 0
    assert seen.modules == (bn,)
    assert seen.repeat is not None
    with seen.guard():
        seen.repeat()
        assert bn.num_batches_tracked == 1
    assert bn.num_batches_tracked == 0
