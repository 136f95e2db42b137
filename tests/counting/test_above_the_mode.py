"""What torch does above a dispatch mode is part of a count: casts, gradients, kernels of others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_nnscale import count, profile
from pytest_nnscale.counting import memo
from pytest_nnscale.counting.counter import Counter

r = torch.rand


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    memo.forget()
    yield
    memo.forget()


def cast(function: Any) -> Any:
    def run(*args: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return function(*args)

    return run


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.einsum("bi,ij->bj", x * 2, r(32, 8)),
        lambda x: torch.tensordot(x * 2, r(32, 8), 1),
        nn.GRU(32, 8).eval(),
        nn.RNN(32, 8).eval(),
        lambda x: nn.functional.pad(x.bfloat16()[None], (1, 1), mode="reflect"),
    ],
    ids=["einsum", "tensordot", "GRU", "RNN", "pad"],
)
def test_casts_inside_composites_are_those_of_a_run(both: Any, function: Any) -> None:
    """Inside a mode autocast is off, and parts of an operator would not be cast."""
    for _ in range(2):
        both(cast(function), (r(20, 32),))


PRODUCTS = {
    "einsum": lambda x, w: torch.einsum("bi,ij->bj", x, w),
    "tensordot": lambda x, w: torch.tensordot(x, w, 1),
    "inner": torch.inner,
    "multi_dot": lambda x, w: torch.linalg.multi_dot([x, w, w]),
    "bilinear": lambda x, w: nn.functional.bilinear(x, x, w.repeat(3, 1, 1)),
    "linear": nn.functional.linear,
}


@pytest.mark.parametrize("within", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_count_changes_no_cast(name: str, within: Any) -> None:
    """What is computed inside a count is what it would be without; a trace agrees with it."""
    x, w = r(4, 64), nn.Parameter(r(64, 64))
    for kind in (torch.bfloat16, torch.float16, None):
        casts: dict[str, Any] = {"dtype": kind or torch.bfloat16, "enabled": kind is not None}
        with within(), torch.autocast("cpu", **casts):
            plain = PRODUCTS[name](x, w)
        with within(), torch.autocast("cpu", **casts), count() as counting:  # with no cast kept
            counted = PRODUCTS[name](x, w)
        with within(), torch.autocast("cpu", **casts):
            traced = profile(PRODUCTS[name], (x, w))
        assert counted.dtype is plain.dtype
        assert torch.equal(counted, plain)
        assert traced.method == "traced"
        assert (traced.flops, traced.memory_bytes) == (
            counting.profile.flops,
            counting.profile.memory_bytes,
        )


def test_a_cast_made_before_is_made_again(both: Any) -> None:
    """The cache of an autocast around a trace is of the time before."""
    layer, x = nn.Linear(8, 8), r(4, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        layer(x)
        both(layer, (x,))


@pytest.mark.parametrize("bias", [True, False])
def test_under_inference_mode_views_of_weights_need_no_gradient(both: Any, bias: bool) -> None:
    """Around a profile and inside a forward, whichever came first."""
    layer, x = nn.Linear(8, 8, bias=bias), r(5000, 3, 8)

    def run(x: Tensor) -> Tensor:
        return layer((x * 2).transpose(0, 1))

    for _ in range(2):
        both(run, (x,))
        both(torch.inference_mode()(run), (x,))
        with torch.inference_mode():
            both(run, (x,))


def test_a_tensor_that_came_to_need_a_gradient_is_told_apart(both: Any) -> None:
    """By either way to say so; what is remembered of the one is not used for the other."""
    x = r(400, 30, 16)

    def product(x: Tensor, way: str) -> Tensor:
        weight = r(16, 2000)
        if way == "call":
            weight.requires_grad_()
        elif way == "attribute":
            weight.requires_grad = True
        return (x * 2).transpose(0, 1) @ weight

    for way in ("call", "neither", "attribute", "neither"):
        both(lambda x, way=way: product(x, way), (x,))


def test_gradients_of_a_function_in_a_forward_belong_to_its_modules(both: Any) -> None:
    """torch.func takes them through autograd of its own."""
    layer = nn.Linear(50, 30)
    model = nn.Sequential(layer)
    model.forward = lambda x: torch.func.grad(lambda a: layer(a).sum())(x)  # type: ignore[method-assign]
    both(model, (r(20, 50),))


def test_an_operator_of_another_library_runs_as_that_says(both: Any) -> None:
    """Made of operators that are counted."""
    with torch.library._scoped_library("nnscale_above", "FRAGMENT") as library:
        library.define("product(Tensor x, Tensor y) -> Tensor")
        library.impl("product", lambda x, y: x @ y, "CompositeImplicitAutograd")
        found = both(lambda x: torch.ops.nnscale_above.product(x * 2, x.T), (r(300, 300),))
        assert found.flops == 2 * 300**3


class Loop(nn.Module):
    """Meets parts of an operator before the operator itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Linear(16, 16), nn.Linear(16, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = (x * 2).transpose(0, 1)
        y = self.first(x)
        for _ in range(4):
            y = y + self.again(x)
        return y


def test_every_time_a_layer_is_called_counts() -> None:
    """Also where the product in it was remembered by itself."""
    for _ in range(3):
        found = profile(Loop(), args=(r(300, 20, 16),))
        assert found.flops == 5 * 2 * 300 * 20 * 16 * 16


def test_a_write_through_a_view_of_a_weight_is_counted_and_undone() -> None:
    """torch refuses to say of such a view whether it is a leaf."""
    weight = nn.Parameter(r(8, 8))
    before = weight.detach().clone()
    with torch.no_grad():
        with Counter(preserve=True) as counter:
            view = weight[0]
            weight[1].zero_()
            view.zero_()
        counter.restore()
    assert torch.equal(weight, before)

    class Zeroing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(4, 4)

        def forward(self, tokens: Tensor) -> Tensor:
            with torch.no_grad():
                self.embedding.weight[0].zero_()
            y = self.embedding(tokens)
            return y if bool(y.sum() > 0) else -y

    model = Zeroing()
    first = model.embedding.weight.detach().clone()
    assert profile(model, args=(torch.tensor([1]),)).method == "executed"
    assert torch.equal(model.embedding.weight, first)


def test_blocks_that_overlap_in_two_threads_leave_the_stance_as_it_was() -> None:
    """The first to come is the first to go."""
    from torch._dynamo import eval_frame

    before = eval_frame._stance.stance
    entered, left = threading.Event(), threading.Event()

    def other() -> None:
        with count():
            entered.set()
            left.wait(10)

    with count():
        thread = threading.Thread(target=other)
        thread.start()
        entered.wait(10)
    left.set()
    thread.join()
    assert eval_frame._stance.stance == before


def test_a_thread_keeps_its_work_where_someone_else_patches_its_start(monkeypatch: Any) -> None:
    """In one counted block and in the next."""
    done: list[int] = []
    with count():
        start = threading.Thread.start
        monkeypatch.setattr(threading.Thread, "start", lambda thread: start(thread))
    for number in range(2):
        with count():
            thread = threading.Thread(target=done.append, args=(number,))
            thread.start()
            thread.join()
    assert done == [0, 1]
