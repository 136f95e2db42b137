"""Where shapes foretell nothing: values decide, or torch refuses; and strides that are ambiguous."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_nnscale import profile
from pytest_nnscale.counting import shapes
from pytest_nnscale.counting.specs import spec, spec_of
from pytest_nnscale.counting.traced import NeedsValues, traced

r = torch.rand


ELEMENTWISE: dict[str, Callable[[Tensor], Any]] = {
    **{
        name: getattr(torch, name)
        for name in ["sigmoid", "tanh", "relu", "exp", "abs", "neg", "sqrt", "erf", "sign"]
    },
    **{
        name: getattr(functional, name)
        for name in [
            "silu",
            "gelu",
            "hardswish",
            "mish",
            "elu",
            "celu",
            "selu",
            "hardsigmoid",
            "hardtanh",
            "relu6",
            "leaky_relu",
            "softplus",
            "softsign",
            "hardshrink",
            "softshrink",
            "tanhshrink",
        ]
    },
    "product with a number": lambda x: x * 2,
    "comparison": lambda x: x > 0,
    "sum": lambda x: x + x,
    "clamp": lambda x: x.clamp(0, 1),
    "power": lambda x: x**2,
    "number first": lambda x: 1 - x,
    "choice": lambda x: torch.where(x > 0, x, x),
    "copy": lambda x: x.clone(),
    "cast": lambda x: x.double(),
    "other shape": lambda x: x + r(1, 4, 1, 1),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_strides_of_axes_of_length_one_are_foretold(name: str) -> None:
    """A later convolution decides by them how it lays out what it gives."""
    source = torch.empty_strided((2, 4, 1, 1), (4, 1, 4, 4)).fill_(0.5)
    calls: list[tuple[Any, Any]] = []

    class Foretold(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            outcome = shapes.outcome_of(func, args, kwargs or {}, torch.device("cpu"))
            out = func(*args, **(kwargs or {}))
            calls.append((outcome.outputs[0], shapes.New(spec_of(out))))
            return out

    with torch.no_grad(), Foretold():
        ELEMENTWISE[name](source)
    assert [foretold for foretold, _ in calls] == [found for _, found in calls]


VALUES_DECIDE: dict[str, Callable[[], Any]] = {
    "mask": lambda: r(3)[torch.tensor([True, False, True])],
    "bytes as mask": lambda: r(3)[torch.tensor([1, 0, 1], dtype=torch.uint8)],
    "nonzero": lambda: r(3).nonzero(),
    "masked_select": lambda: r(3).masked_select(torch.tensor([True, False, True])),
    "unique": lambda: torch.unique(r(3)),
    "item": lambda: r(()).item(),
    "equal": lambda: torch.equal(r(3), r(3)),
    "bincount": lambda: torch.bincount(torch.tensor([1, 2])),
    "repeat_interleave": lambda: r(2).repeat_interleave(torch.tensor([1, 2])),
    "sparse": lambda: torch.eye(3).to_sparse(),
}


@pytest.mark.parametrize("name", VALUES_DECIDE)
@pytest.mark.filterwarnings("ignore")
def test_what_values_decide_is_not_foretold(set_beside: Any, name: str) -> None:
    """NeedsValues, never a guess."""
    with torch.no_grad(), set_beside() as beside:
        VALUES_DECIDE[name]()
    assert beside.refused
    assert not beside.wrong


def test_devices_are_not_mixed() -> None:
    """An operator on two devices is torch's to refuse, when it runs."""
    add = torch.ops.aten.add.Tensor
    there = torch.device("cuda")
    far = traced(spec((3,), (1,), torch.float32, there), None)
    with pytest.raises(NeedsValues, match="mixes cpu and cuda"):
        shapes.outcome_of(add, (far, r(3)), {}, torch.device("cpu"))
    put = torch.ops.aten.index_put_.default
    with pytest.raises(NeedsValues, match="mixes cpu and cuda"):
        shapes.outcome_of(put, (r(3), [far], r(3)), {}, torch.device("cpu"))


X4 = r(1, 3, 5, 5)
REFUSED_BY_TORCH: dict[str, Callable[[], Any]] = {
    "a bias of another width": lambda: functional.conv2d(X4, r(4, 3, 3, 3), r(5)),
    "a bias of another precision": lambda: functional.conv2d(X4, r(4, 3, 3, 3), r(4).double()),
    "truths": lambda: functional.conv2d(X4.bool(), r(4, 3, 3, 3).bool()),
    "groups": lambda: functional.conv2d(r(1, 4, 5, 5), r(3, 2, 3, 3), groups=2),
    "no stride": lambda: functional.conv2d(X4, r(4, 3, 3, 3), stride=0),
    "three strides": lambda: functional.conv2d(X4, r(4, 3, 3, 3), stride=(1, 1, 1)),
    "no dilation": lambda: functional.conv2d(X4, r(4, 3, 3, 3), dilation=0),
    "padding below zero": lambda: functional.conv2d(X4, r(4, 3, 3, 3), padding=-1),
    "output padding": lambda: functional.conv_transpose2d(X4, r(3, 4, 3, 3), output_padding=2),
    "a norm of integers": lambda: functional.batch_norm(X4.long(), torch.zeros(3), torch.ones(3)),
    "a norm of another precision": lambda: functional.batch_norm(
        X4, None, None, r(3).double(), None, True
    ),
    "a norm in other groups": lambda: functional.group_norm(r(2, 4, 3), 3),
    "more than there is to reflect": lambda: functional.pad(
        r(1, 2, 4, 4).to(memory_format=torch.channels_last), (4,) * 4, mode="reflect"
    ),
    "weights of another precision": lambda: functional.embedding_bag(
        torch.tensor([[1, 2]]), r(5, 4), mode="sum", per_sample_weights=r(1, 2).double()
    ),
    "experts of another width": lambda: functional.grouped_mm(r(2, 3, 4), r(2, 5, 4)),
    "values of integers": lambda: torch.linalg.svd(torch.ones(3, 3, dtype=torch.long)),
    "other steps": lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()(
        r(2, 3, 7)
    ),
}


@pytest.mark.parametrize("name", REFUSED_BY_TORCH)
def test_what_torch_refuses_is_shown_by_torch(name: str) -> None:
    """A model that cannot run has no numbers: its own error is shown, as a plain call raises it."""
    with torch.no_grad(), pytest.raises(Exception) as plain:  # noqa: PT011
        REFUSED_BY_TORCH[name]()
    with pytest.raises(type(plain.value)) as profiled:
        profile(REFUSED_BY_TORCH[name], args=())
    assert str(profiled.value) == str(plain.value)
