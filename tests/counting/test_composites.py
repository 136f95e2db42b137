"""Operators made of others: remembered with what they did, where that follows from arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_nnscale import observing
from pytest_nnscale.counting import memo
from pytest_nnscale.counting.composites import WHOLE
from pytest_nnscale.workload import Workload

r = torch.rand
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    memo.forget()
    yield
    memo.forget()


def remembered() -> dict[str, memo.Remembered]:
    """Return the composites in the table of an inference on the CPU, by their names."""
    table = memo.table_for(CPU, alone=True)
    return {known.name: known for known in table.values() if known.parts is not None}


CALLS: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Any, ...]], list[str]]] = {
    "linear": (lambda m, x: m(x), lambda: (nn.Linear(8, 4), r(3000, 8)), ["t", "addmm"]),
    "a linear of steps": (lambda m, x: m(x), lambda: (nn.Linear(8, 4), r(2000, 3, 8)), ["view", "t", "addmm", "view"]),
    "conv2d": (lambda m, x: m(x), lambda: (nn.Conv2d(3, 4, 3), r(200, 3, 8, 8)), ["convolution"]),
    "batch_norm": (lambda m, x: m(x), lambda: (nn.BatchNorm2d(3).eval(), r(200, 3, 8, 8)), ["empty", "native_batch_norm"]),
    "layer_norm": (lambda m, x: m(x), lambda: (nn.LayerNorm(8), r(3000, 8)), ["native_layer_norm"]),
    "dropout": (lambda m, x: m(x), lambda: (nn.Dropout().eval(), r(3000, 8)), []),
    "reshape": (lambda x: x.reshape(-1, 4), lambda: (r(3000, 8),), ["view"]),
    "chunk": (lambda x: x.chunk(2), lambda: (r(3000, 8),), ["split"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_composite_is_remembered_with_its_parts(both: Any, name: str) -> None:
    """And counts the second time as it did the first, which is as a run counts."""
    call, make, parts = CALLS[name]
    *modules, x = make()

    def run(x: Tensor) -> Any:
        return call(*modules, x * 2)  # of which the values are not known, as it is large

    counts = [both(run, (x,)) for _ in range(3)]
    assert counts[0] == counts[1] == counts[2]
    composites = [each for each in remembered().values() if each.parts is not None]
    found = [
        part.name.removeprefix("aten::").partition(".")[0] for part in composites[0].parts or ()
    ]
    assert (len(composites), found) == (1, parts)


def test_what_a_composite_makes_and_drops_is_booked_each_time(both: Any) -> None:
    """The statistics of a layer norm are alive beside its output, at the peak."""
    norm, rows = nn.LayerNorm(1, elementwise_affine=False), 20_000
    first, second = (both(lambda x: norm(x * 2), (r(rows, 1),)) for _ in range(2))
    assert first.memory_bytes == second.memory_bytes == 5 * 4 * rows
    (known,) = remembered().values()
    assert (known.before, known.after) == ((), (4 * rows, 4 * rows, -4 * rows, -4 * rows))


def test_whether_weights_are_frozen_is_part_of_a_call(both: Any) -> None:
    """torch folds a batched product into one matrix where the right one needs a gradient."""
    layer, x = nn.Linear(8, 8), r(5000, 3, 8).transpose(0, 1)

    def run(x: Tensor) -> Tensor:
        return layer(x * 2)

    trained = both(run, (x,))
    layer.requires_grad_(False)
    frozen = both(run, (x,))
    layer.requires_grad_(True)
    again = both(run, (x,))
    assert "aten::linear" in remembered()
    assert trained == again
    assert trained.by_operator[0].operator == "aten::mm"
    assert frozen.by_operator[0].operator == "aten::bmm"


def test_views_of_weights_need_a_gradient_as_in_a_run() -> None:
    """What is detached, or computed, needs none where gradients are off."""
    weight = nn.Parameter(r(4, 4))

    def asked(_: Tensor) -> list[bool]:
        views = (weight.t(), weight[1:], weight.t()[0], weight.chunk(2)[1], weight.reshape(-1))
        others = (weight.detach(), weight * 2, weight.t().contiguous(), weight.sum(0))
        return [each.requires_grad for each in (*views, *others)]

    seen: list[list[bool]] = []
    tracer = observing._trace(Workload(lambda x: seen.append(asked(x)), (r(1),)))
    assert not tracer.gave_up
    with torch.no_grad():
        assert seen == [asked(r(1))] == [[True] * 5 + [False] * 4]


def test_a_composite_of_composites_has_the_parts_of_all(both: Any) -> None:
    """A product reshapes its left factor, as another one of the same left factor did before."""
    x, narrow, wide = r(40, 30, 20, 8), r(30, 40, 8, 3), r(30, 40, 8, 5)
    left = "aten::reshape", "aten::matmul"
    for right in (narrow, wide):
        both(lambda x, right=right: (x * 2).transpose(0, 1) @ (right * 2), (x,))
        assert {*left} <= remembered().keys()
    parts = [part for known in remembered().values() for part in known.parts or ()]
    assert all(part.parts is None for part in parts)
    assert "aten::clone" in {part.name for part in parts}


def test_flags_of_a_backend_decide_anew_each_time(both: Any) -> None:
    """Fused attention or not is no matter of shapes."""
    q = r(1, 2, 16, 8)

    def attend(q: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, q, q)

    fused = both(attend, (q,))
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        plain = both(attend, (q,))
    assert fused.kernels < plain.kernels
    assert torch.ops.aten.scaled_dot_product_attention.default.name() not in WHOLE


def test_gradients_turned_on_inside_are_traced_with_autograd(both: Any) -> None:
    """What is kept for a backward pass is alive until it has run."""

    def slope(x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = (x * 2).sigmoid().sum()
        return torch.autograd.grad(y, x)[0]

    count = both(slope, (r(100),))
    assert count.traced
    assert count.memory_bytes > 3 * 400


def test_asking_for_gradients_that_nobody_takes_equals_a_run(both: Any) -> None:
    """Without autograd nothing would keep the activations."""

    def kept(x: Tensor) -> Tensor:
        with torch.enable_grad():
            for _ in range(4):
                x = x.requires_grad_().sigmoid()
        return x.detach()

    assert both(kept, (r(100),)).memory_bytes == 5 * 400


def test_every_composite_named_is_there() -> None:
    """A name that torch does not have would be remembered in vain."""
    for name in WHOLE:
        packet, _, overload = name.removeprefix("aten::").partition(".")
        operator = getattr(getattr(torch.ops.aten, packet), overload or "default")
        assert operator.name() == name
