"""An outline puts back what a module's attributes held and where its tensors lie."""

from __future__ import annotations

import gc
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_nnscale.preservation.outline import Outline
from pytest_nnscale.preservation.places import KeptPlaces


class Thing:
    """A plain object that holds something."""

    def __init__(self, **held: Any) -> None:
        vars(self).update(held)


def holding(value: Any) -> nn.Module:
    module = nn.Module()
    module.held = value
    return module


# What a module holds, how a call changes it, and how it looks to a reader.
HELD: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "a list": (lambda: [1, 2], lambda v: v.append(3)),
    "a list, shorter": (lambda: [1, 2], lambda v: v.clear()),
    "a list, other items": (lambda: ["a", "b"], lambda v: v.__setitem__(0, "c")),
    "a list, another order": (lambda: ["a", "b"], lambda v: v.reverse()),
    "an empty list": (list, lambda v: v.append(1)),
    "a dict": (lambda: {"a": 1}, lambda v: v.update(b=2)),
    "a dict, another value": (lambda: {"a": "x"}, lambda v: v.update(a="y")),
    "a dict, another key": (lambda: {"a": 1}, lambda v: v.update(b=v.pop("a"))),
    "an empty dict": (dict, lambda v: v.update(b=2)),
    "an ordered dict": (lambda: OrderedDict(a=1, b=2), lambda v: v.move_to_end("a")),
    "a default dict": (lambda: defaultdict(list, a=[1]), lambda v: v["b"].append(1)),
    "a set": (lambda: {1, 2}, lambda v: v.add(3)),
    "a deque": (lambda: deque([1, 2]), lambda v: v.rotate()),
    "a list in a list": (lambda: [[1], [2]], lambda v: v[0].append(3)),
    "a list in a dict": (lambda: {"a": [1]}, lambda v: v["a"].append(3)),
    "a dict in a list": (lambda: [{"a": 1}], lambda v: v[0].update(b=2)),
    "a list in a tuple": (lambda: ([1], 2), lambda v: v[0].append(3)),
    "a list in a tuple in a list": (lambda: [([1], 2)], lambda v: v[0][0].append(3)),
    "an empty list in a tuple": (lambda: ([], 2), lambda v: v[0].append(3)),
    "three levels": (lambda: {"a": [{"b": [1]}]}, lambda v: v["a"][0]["b"].append(2)),
    "an object": (lambda: Thing(a=1), lambda v: setattr(v, "a", 2)),
    "an object, more of it": (lambda: Thing(a=1), lambda v: setattr(v, "b", 2)),
    "an object in a list": (lambda: [Thing(a=[1])], lambda v: v[0].a.append(2)),
    "an object in an object": (lambda: Thing(a=Thing(b=1)), lambda v: setattr(v.a, "b", 2)),
    "tensors in a list": (lambda: [torch.ones(2)], lambda v: v.append(torch.ones(3))),
    "a cycle": (lambda: _cycle(), lambda v: v.append(3)),
}


def _cycle() -> list[Any]:
    around: list[Any] = [1]
    around.append(around)
    return around


def shown(value: Any) -> Any:
    """Return a value's content, to be compared."""
    if isinstance(value, Thing):
        return {name: shown(each) for name, each in vars(value).items()}
    if isinstance(value, dict):
        return [(key, shown(each)) for key, each in value.items()]
    if isinstance(value, list | tuple | deque):
        return [id(each) if each is value else shown(each) for each in value]
    if isinstance(value, set):
        return sorted(value)
    return id(value) if isinstance(value, Tensor) else value


@pytest.mark.parametrize("name", HELD)
def test_what_an_attribute_held_is_put_back(name: str) -> None:
    """In the same container, item by item, some levels deep."""
    make, change = HELD[name]
    module = holding(make())
    value, before = module.held, shown(module.held)
    outline = Outline([module])
    change(value)
    assert shown(value) != before
    outline.restore()
    assert module.held is value
    assert shown(value) == before


@pytest.mark.parametrize("name", HELD)
def test_what_an_input_held_is_put_back(name: str) -> None:
    """Containers that are handed over are looked into as attributes are."""
    make, change = HELD[name]
    value = make()
    before = shown(value)
    outline = Outline([], inputs=(value,))
    change(value)
    outline.restore()
    assert shown(value) == before


def test_attributes_are_put_back() -> None:
    """Changed ones, new ones, and ones that are gone; of every part."""
    model = nn.Sequential(holding(1), holding("a"))
    outline = Outline([*model.modules()])
    model[0].held = 2
    del model[1].held
    model[1].more = 3
    model.held = 4
    outline.restore()
    assert (model[0].held, model[1].held) == (1, "a")
    assert not hasattr(model, "held")
    assert not hasattr(model[1], "more")


def test_names_are_put_back() -> None:
    """What goes by another name, and is the same, is put back too."""
    module = holding([1])
    outline = Outline([module])
    module.other = vars(module).pop("held")
    outline.restore()
    assert module.held == [1]
    assert not hasattr(module, "other")


def test_equal_values_are_told_apart() -> None:
    """An attribute is put back by identity: what is equal is not the same."""
    first, second = [1], [1]
    module = holding(first)
    outline = Outline([module])
    module.held = second
    outline.restore()
    assert module.held is first


def test_parts_are_put_back_in_their_order() -> None:
    """Names of parts, parameters and buffers, in the order they were made in."""
    model = nn.Sequential(OrderedDict(a=nn.Linear(2, 2), b=nn.Linear(2, 2)))
    outline = Outline([*model.modules()])
    kept = model.a
    del model.a
    model.a = kept
    outline.restore()
    assert [name for name, _ in model.named_children()] == ["a", "b"]


def test_a_generator_draws_again_what_it_drew() -> None:
    """Whether it is an attribute, or lies in a list."""
    one, other = torch.Generator(), torch.Generator()
    module = holding(one)
    module.more = [other]
    outline = Outline([module])
    drawn = [torch.rand(2, generator=each) for each in (one, other)]
    outline.restore()
    again = [torch.rand(2, generator=each) for each in (one, other)]
    assert all(map(torch.equal, drawn, again))


def test_kinds_are_the_types_of_attributes() -> None:
    """By which packed weights are found."""
    assert Thing in Outline([holding(Thing())]).kinds


def test_what_replaced_something_is_let_go() -> None:
    """After it was put back, nothing keeps what the call had made."""
    module = holding([torch.ones(1)])
    outline = Outline([module])
    fresh = torch.ones(2)
    gone = weakref.ref(fresh)
    module.held = [fresh]
    outline.restore()
    del fresh
    gc.collect()
    assert gone() is None


MOVES: dict[str, Callable[[Tensor], Any]] = {
    "other data": lambda x: setattr(x, "data", torch.zeros(2, 3)),
    "another shape": lambda x: setattr(x, "data", torch.zeros(5)),
    "another type": lambda x: setattr(x, "data", torch.zeros(2, 3).double()),
    "transposed": lambda x: setattr(x, "data", x.data.t()),
    "a part": lambda x: setattr(x, "data", x.data[1:]),
    "a flag": lambda x: x.requires_grad_(not x.requires_grad),
    "a gradient": lambda x: setattr(x, "grad", torch.ones_like(x)) if x.is_floating_point() else 0,
    "no gradient": lambda x: setattr(x, "grad", None),
    "a version": lambda x: torch._C._autograd._unsafe_set_version_counter((x,), (7,)),
}


@pytest.mark.parametrize("graded", [False, True], ids=["no gradient", "gradient"])
@pytest.mark.parametrize("name", MOVES)
def test_where_a_tensor_lies_is_put_back(name: str, graded: bool) -> None:
    """Storage, geometry, type, flags, gradient and version; its values were never written."""
    x = torch.arange(6.0).view(2, 3).requires_grad_()
    other = torch.ones(3)
    if graded:
        x.grad = torch.ones(2, 3)
    before = (
        x.data_ptr(), x.shape, x.stride(), x.dtype, x.requires_grad, x.grad, x._version, x.tolist(),
    )  # fmt: skip
    places = KeptPlaces([other, x])
    MOVES[name](x)
    places.restore()
    after = (
        x.data_ptr(), x.shape, x.stride(), x.dtype, x.requires_grad, x.grad, x._version, x.tolist(),
    )  # fmt: skip
    assert after[:5] == before[:5]
    assert after[5] is before[5]
    assert after[6:] == before[6:]


def test_a_gradient_that_moved_is_put_back() -> None:
    """It is looked after as the tensor is that has it."""
    x = torch.ones(2, 3).requires_grad_()
    x.grad = torch.arange(6.0).view(2, 3)
    gradient, address = x.grad, x.grad.data_ptr()
    places = KeptPlaces([x])
    x.grad.data = torch.zeros(2, 3)
    places.restore()
    assert x.grad is gradient
    assert x.grad.data_ptr() == address


@pytest.mark.filterwarnings("ignore")
def test_tensors_of_every_kind_are_taken() -> None:
    """Sparse and nested ones, those of inference_mode, views, on meta, and none at all."""
    with torch.inference_mode():
        inferred = torch.ones(3)
    kinds = [
        torch.eye(3).to_sparse(),
        torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        inferred,
        torch.ones(4)[1:],
        torch.ones(2, device="meta"),
        torch.ones(0),
        torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8),
        torch.ones(2).requires_grad_() * 2,
    ]
    for each in kinds:
        KeptPlaces([each]).restore()
    places = KeptPlaces(kinds)
    places.restore()
    assert len(places.tensors) + len(places._others) == len(kinds)
    assert not places.all_dense
    KeptPlaces([]).restore()


def test_each_tensor_is_taken_once() -> None:
    """Tied weights have one place."""
    x = torch.ones(2)
    assert len(KeptPlaces([x, x, torch.ones(2)]).tensors) == 2
