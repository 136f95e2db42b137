"""What is remembered of calls by their shapes is what a first trace finds, and is told apart."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import flop_counter

from pytest_nnscale import flop_formula, observing, profile
from pytest_nnscale.counting import declared, memo
from pytest_nnscale.counting.formulas import registry
from pytest_nnscale.counting.ledger import Count
from pytest_nnscale.workload import Workload

r = torch.rand
numbers = itertools.count()


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    memo.forget()
    yield
    memo.forget()


def traced(model: Any, *args: Any, phase: Any = "inference") -> Count:
    tracer = observing._trace(Workload(model, args, {}, phase))
    assert not tracer.gave_up
    return tracer.count()


def seen_by(function: Callable[..., Any], *args: Any) -> Any:
    """Return what a function saw of its tensors in a trace, as it told by returning."""
    seen = []
    tracer = observing._trace(Workload(lambda *given: seen.append(function(*given)), args))
    assert not tracer.gave_up
    return seen[0]


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Any, ...]]]] = {
    "layers": (lambda: nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 2)), lambda: (r(4, 8),)),
    "convolutions": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True), nn.MaxPool2d(2), nn.Dropout()),
        lambda: (r(2, 3, 8, 8),),
    ),
    "GRU": (lambda: nn.GRU(8, 8, 2), lambda: (r(5, 3, 8),)),
    "encoder": (lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), lambda: (r(2, 5, 16),)),
    "embedding": (lambda: nn.Embedding(10, 4), lambda: (torch.zeros(2, 3, dtype=torch.long),)),
    "shared": (lambda: nn.Sequential(*[nn.Linear(8, 8)] * 3), lambda: (r(4, 8),)),
    "split": (lambda: nn.LSTMCell(8, 8), lambda: (r(4, 8),)),
}  # fmt: skip


@pytest.mark.parametrize("phase", ["inference", "training"])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_remembered_equals_what_is_found_first(name: str, phase: Any) -> None:
    """All fields, of the same model and of another one of its kind."""
    make, inputs = MODELS[name]
    fresh, again, another = (
        traced(model.train(phase == "training"), *inputs(), phase=phase)
        for model in [*[make()] * 2, make()]
    )
    assert fresh == again == another


APART: dict[str, tuple[Callable[[Tensor, Any], Any], tuple[Any, Any], tuple[Any, Any]]] = {
    "1 and 1.0": (lambda x, by: (x * by).dtype, (1, 1.0), (torch.int64, torch.float32)),
    "1 and True": (lambda x, by: (x > 9).mul(by).dtype, (1, True), (torch.int64, torch.bool)),
    "0 and False": (lambda x, by: (x > 9).add(by).dtype, (0, False), (torch.int64, torch.bool)),
    "1.0 and 1+0j": (lambda x, by: (x * by).dtype, (1.0, 1 + 0j), (torch.float32, torch.complex64)),
    "values of full": (lambda x, by: (x + torch.full((20000,), by)).dtype, (1, 1.0), (torch.int64, torch.float32)),
    "a list and a tuple": (lambda x, by: x.expand(by).shape, ([20000], (1, 20000)), ((20000,), (1, 20000))),
    "dtypes": (lambda x, by: x.to(by).dtype, (torch.int8, torch.float64), (torch.int8, torch.float64)),
    "axes": (lambda x, by: x.view(100, 200).sum(by).shape, (0, 1), ((200,), (100,))),
    "names": (lambda x, by: x.view(100, 200).sum(**by).shape, ({"dim": 0}, {"dim": 0, "keepdim": True}), ((200,), (1, 200))),
}  # fmt: skip


@pytest.mark.parametrize("name", APART)
def test_arguments_that_python_takes_for_equal_are_told_apart(name: str) -> None:
    """Whichever of two calls comes first."""
    function, given, expected = APART[name]
    x = torch.zeros(20000, dtype=torch.int64)  # more than a trace knows the values of
    for order in (slice(None), slice(None, None, -1)):
        memo.forget()
        found = [seen_by(lambda t, by=by: function(t, by), x) for by in given[order]]
        assert found == [*expected[order]]


def test_lists_of_numbers_are_told_apart() -> None:
    """What decides the dtype of a sum may be the last of several."""
    x = torch.ones(20000, dtype=torch.int64)
    found = [
        seen_by(lambda t, by=by: torch._foreach_mul([t, t], by)[1].dtype, x)
        for by in ([1, 2], [1, 2.0], [1, 2])
    ]
    assert found == [torch.int64, torch.float32, torch.int64]


def test_the_default_dtype_is_part_of_a_call() -> None:
    """Tensors made without a dtype are of another one afterwards."""

    def made(x: Tensor) -> Any:
        return (x.sum() + torch.zeros(20000)).dtype, (x.long() / 2).dtype

    before = torch.get_default_dtype()
    try:
        first = seen_by(made, r(20000))
        torch.set_default_dtype(torch.float64)
        second = seen_by(made, torch.rand(20000))
    finally:
        torch.set_default_dtype(before)
    assert first == (torch.float32, torch.float32)
    assert second == (torch.float64, torch.float64)


def test_strides_are_part_of_a_call() -> None:
    """Images with channels last give such, and others do not."""
    convolution = nn.Conv2d(3, 4, 3)
    image = r(2, 3, 80, 80)
    last = image.to(memory_format=torch.channels_last)
    strides = [
        seen_by(lambda x: convolution(x).is_contiguous(), each) for each in (image, last, image)
    ]
    assert strides == [True, False, True]


def test_offsets_are_part_of_a_call() -> None:
    """A view of a view lies where it lies."""
    x = r(4, 20000)
    offsets = [seen_by(lambda t: t[1:].storage_offset(), each) for each in (x, x[1:], x)]
    assert offsets == [20000, 40000, 20000]


def test_dtypes_are_part_of_a_call() -> None:
    """The bytes of what comes back depend on them."""
    one, other = (
        traced(lambda x: x + x, r(20000, dtype=d)) for d in (torch.float32, torch.float64)
    )
    assert 2 * one.memory_bytes == other.memory_bytes


def test_devices_are_part_of_a_call() -> None:
    """What is on meta is traced to where the model runs."""
    x = r(20000)
    first = seen_by(lambda t: (t + 1).device.type, x)
    second = seen_by(lambda t: torch.empty(20000, device="meta").add(1).device.type, x)
    assert first == second == "cpu"


def test_gradients_are_no_part_of_a_call() -> None:
    """Whether one is needed changes nothing of a single operator."""
    x = r(20000)
    assert traced(lambda t: t * 2, x).flops == traced(lambda t: t * 2, x.requires_grad_()).flops


def _operator() -> Any:
    @torch.library.custom_op(f"nnscale_memo::op{next(numbers)}", mutates_args=())
    def double(x: Tensor) -> Tensor:
        return x * 2

    @double.register_fake
    def _(x: Tensor) -> Tensor:
        return torch.empty_like(x)

    return double


@pytest.fixture
def _formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_of_users", dict(registry._of_users))
    monkeypatch.setattr(flop_counter, "flop_registry", flop_counter.flop_registry)


@pytest.mark.usefixtures("_formulas")
def test_a_formula_that_comes_later_counts() -> None:
    """What a first profile found uncounted is counted by the second."""
    operator, x = _operator(), r(200, 100)
    first = profile(lambda t: operator(t), args=(x,))
    flop_formula(operator)(lambda shape, **_: 7 * shape[0])
    second = profile(lambda t: operator(t), args=(x,))
    assert (first.flops, len(first.uncounted)) == (0, 1)
    assert (second.flops, second.uncounted) == (1400, ())


def test_an_operator_declared_free_later_is_free() -> None:
    """And one that is not any more is unknown again."""
    operator, x = _operator(), r(200, 100)
    name = operator._qualname
    assert profile(lambda t: operator(t), args=(x,)).uncounted
    before = declared.declared_names()
    declared.declare_free(frozenset({name}))
    try:
        assert not profile(lambda t: operator(t), args=(x,)).uncounted
    finally:
        declared.declare_free(before)
    assert profile(lambda t: operator(t), args=(x,)).uncounted


def test_a_formula_registered_with_torch_later_counts() -> None:
    """torch's own table is looked at, too."""
    operator, x = _operator(), r(200, 100)
    packet = operator._opoverload._overloadpacket
    assert profile(lambda t: operator(t), args=(x,)).uncounted
    flop_counter.register_flop_formula(packet)(lambda shape, **_: 3)
    try:
        assert profile(lambda t: operator(t), args=(x,)).flops == 3
    finally:
        del flop_counter.flop_registry[packet]


@pytest.mark.usefixtures("_formulas")
def test_a_raw_formula_is_asked_each_time() -> None:
    """It sees more than shapes, so what it said once says nothing of the next call."""
    operator, x = _operator(), r(200, 100)
    asked: list[tuple[int, ...]] = []

    @flop_formula(operator, get_raw=True)
    def _(tensor: Tensor, out_val: Tensor) -> int:
        asked.append(tuple(out_val.shape))
        return len(asked)

    found = [profile(lambda t: operator(t), args=(x,)).flops for _ in range(3)]
    assert found == [1, 2, 3]
    assert asked == [(200, 100)] * 3


def test_values_are_not_remembered() -> None:
    """A branch on an input goes by the input of this call."""
    model = nn.Linear(8, 8)

    def branch(x: Tensor) -> Tensor:
        return model(x) if x.sum() > 0 else model(model(x))

    flops = [traced(branch, each).flops for each in (r(4, 8), -r(4, 8), r(4, 8))]
    assert flops == [512, 1024, 512]


@pytest.mark.parametrize("phase", ["inference", "training"])
def test_nothing_of_the_users_is_kept_alive(phase: Any) -> None:
    """Model, inputs, weights and what a forward made are gone with the last name for them."""
    model, x = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)), r(4, 8)
    profile(model, args=(x,), phase=phase)
    kept = [weakref.ref(each) for each in (model, model[0], x, *model.parameters())]
    del model, x
    gc.collect()
    assert [each() for each in kept] == [None] * len(kept)


def test_it_is_emptied_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that meets ever new shapes does not grow for ever."""
    monkeypatch.setattr(memo, "_MOST", 5)
    for length in range(1, 40):
        traced(lambda x: functional.relu(x + x), r(length, 200))
    assert sum(map(len, memo._tables.values())) <= 5 + 2
