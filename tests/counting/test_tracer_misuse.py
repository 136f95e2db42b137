"""Whatever a forward does to itself, or raises, the user sees that, and the model is as it was."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks
from torch.optim import optimizer as optimizer_hooks
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from pytest_nnscale import profile

HOOKS = (
    *(f"_global_{kind}" for kind in ("forward_hooks", "forward_pre_hooks", "backward_hooks")),
    "_global_forward_hooks_always_called",
)


class Model(nn.Module):
    """Has one of each: weights, statistics, a list, a dict, a flag, hooks, a gradient."""

    def __init__(self, act: Callable[[Model, Tensor], Any] | None = None) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 2)
        self.register_buffer("table", torch.zeros(4))
        self.seen: list[Any] = []
        self.notes: dict[str, Any] = {"calls": 0}
        self.calls = 0
        self.act = act
        self.last.weight.grad = torch.ones(2, 4)
        self.last.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x))
        if self.act is not None:
            self.act(self, y)
        return self.last(y)


def state(model: nn.Module) -> dict[str, Any]:
    """Return all there is to a model, by identity and by value, and the state of the process."""
    found: dict[str, Any] = {}
    for name, part in model.named_modules():
        for key, value in vars(part).items():
            found[f"{name}.{key}"] = (
                id(value),
                (
                    [*map(id, value), *map(id, value.values())]
                    if isinstance(value, dict)
                    else [*map(id, value)]
                    if isinstance(value, list)
                    else None
                ),
            )
        found[f"{name} names"] = sorted(vars(part))
        found[f"{name} trains"] = part.training
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        found[name] = (
            id(tensor), tensor.data_ptr(), tensor.tolist(), tensor.stride(), tensor._version,
            tensor.requires_grad, tensor.dtype, tensor.grad_fn, id(tensor.grad),
            None if tensor.grad is None else (tensor.grad.tolist(), tensor.grad._version),
        )  # fmt: skip
    return found


def process() -> dict[str, Any]:
    """Return what a profile could leave behind in the process."""
    return {
        "hooks": [len(getattr(module_hooks, name)) for name in HOOKS],
        "steps": [
            len(optimizer_hooks._global_optimizer_pre_hooks),
            len(optimizer_hooks._global_optimizer_post_hooks),
        ],
        "modes": _get_current_dispatch_mode_stack(),
        "collects": gc.isenabled(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "autocast": torch.is_autocast_enabled("cpu"),
        "views": torch.autograd.grad_mode._force_original_view_tracking.__name__,
        "thread": threading.Thread.start,
    }


@pytest.fixture
def _left_alone() -> Iterator[None]:
    before = process()
    yield
    after = process()
    for name, value in before.items():
        assert after[name] == value, name


def _sets(**values: Any) -> Callable[[Model, Tensor], None]:
    def act(model: Model, _y: Tensor) -> None:
        for name, value in values.items():
            setattr(model, name, value)

    return act


def _swap_data(model: Model, _y: Tensor) -> None:
    model.first.weight.data = torch.zeros(4, 4)


def _swap_parts(model: Model, _y: Tensor) -> None:
    model.first, model.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)  # after both have run


def _delete(model: Model, _y: Tensor) -> None:
    del model.notes
    del model.first


def _flip(model: Model, _y: Tensor) -> None:
    model.train(not model.training)
    model.requires_grad_(False)
    model.last.bias.requires_grad_(True)


def _forget_gradients(model: Model, _y: Tensor) -> None:
    model.zero_grad(set_to_none=True)
    model.first.weight.grad = torch.ones(4, 4)


CHANGES: dict[str, Callable[[Model, Tensor], Any]] = {
    "an attribute": _sets(calls=5, new=[1]),
    "an attribute is an activation": lambda m, y: setattr(m, "cache", y),
    "a list": lambda m, y: m.seen.append(y),
    "a dict": lambda m, y: m.notes.update(calls=3, last=y),
    "nested": lambda m, y: m.notes.setdefault("inner", []).append(y),
    "a new part": lambda m, y: m.add_module("more", nn.Linear(4, 4)),
    "other parts": _swap_parts,
    "a part is gone": _delete,
    "a hook": lambda m, y: m.last.register_forward_hook(lambda *_: None),
    "a buffer": lambda m, y: m.register_buffer("fresh", torch.ones(3)),
    "a parameter": lambda m, y: m.register_parameter("fresh", nn.Parameter(torch.ones(3))),
    "another buffer": lambda m, y: setattr(m, "table", m.table + 1),
    "a buffer, in place": lambda m, y: m.table.add_(1),
    "a weight, in place": lambda m, y: m.first.weight.data.mul_(2),
    "a weight, without gradients": lambda m, y: torch.no_grad()(m.first.weight.zero_)(),
    "other data": _swap_data,
    "modes and flags": _flip,
    "gradients": _forget_gradients,
    "random numbers": lambda m, y: (random.random(), torch.rand(3), torch.manual_seed(0)),
    "grad mode": lambda m, y: torch.set_grad_enabled(not torch.is_grad_enabled()),
    "collection of garbage": lambda m, y: gc.enable(),
    "a pass backward": lambda m, y: y.sum().backward() if y.requires_grad else None,
}


@pytest.mark.parametrize("phase", ["inference", "training"])
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.usefixtures("_left_alone")
def test_a_model_that_changes_itself_is_as_it_was(name: str, phase: Any) -> None:
    """State, attributes, hooks, versions and flags, the process's own included."""
    if (name, phase) in {("grad mode", "training"), ("a pass backward", "training")}:
        pytest.skip("nothing could be trained after that")
    model = Model(CHANGES[name])
    before = state(model)
    x = torch.rand(3, 4)
    drawn = random.getstate(), torch.get_rng_state().tolist()
    found = profile(model, args=(x,), phase=phase)
    after = state(model)
    assert found.flops
    assert (random.getstate(), torch.get_rng_state().tolist()) == drawn
    for key, value in before.items():
        assert after[key] == value, key
    assert after.keys() == before.keys()


class Mine(Exception):
    """An error of the user's."""


def _raise(error: BaseException) -> Callable[..., Any]:
    def act(*_: Any) -> None:
        raise error

    return act


def _hooked(where: str) -> Model:
    model = Model()
    part = model.last
    error = _raise(Mine(f"in a {where} hook"))
    if where == "forward":
        part.register_forward_hook(error)
    elif where == "pre":
        part.register_forward_pre_hook(error)
    else:
        part.register_full_backward_hook(error)
    return model


def _raise_after_writing(model: Model, y: Tensor) -> None:
    model.seen.append(y)
    model.table += 1
    model.train(False)
    raise Mine("after it wrote")


FAILURES: dict[str, tuple[Callable[[], Model], type[BaseException], str]] = {
    "its own": (lambda: Model(_raise(Mine("half way"))), Mine, "half way"),
    "after it wrote": (lambda: Model(_raise_after_writing), Mine, "after it wrote"),
    "shapes": (lambda: Model(lambda m, y: m.last(y.T)), RuntimeError, "cannot be multiplied"),
    "layer norm": (
        lambda: Model(lambda m, y: nn.LayerNorm(4).double()(y)), RuntimeError, "mixed dtype"),
    "group norm": (
        lambda: Model(lambda m, y: nn.GroupNorm(2, 4).double()(y)), RuntimeError, "mixed dtype"),
    "batch norm": (
        lambda: Model(lambda m, y: nn.BatchNorm1d(4).double()(y)), RuntimeError, "mixed dtype"),
    "half svd": (
        lambda: Model(lambda m, y: torch.linalg.svd((y @ y.T).half())), NotImplementedError, "Half"),
    "views": (lambda: Model(lambda m, y: y.view(5, 5)), RuntimeError, "invalid for input of size"),
    "types": (lambda: Model(lambda m, y: y + "a"), TypeError, "str"),
    "no attribute": (lambda: Model(lambda m, y: m.nothing), AttributeError, "nothing"),
    "an assertion": (lambda: Model(_raise(AssertionError("no"))), AssertionError, "no"),
    "recursion": (lambda: Model(lambda m, y: m(y)), RecursionError, "recursion"),
    "a forward hook": (lambda: _hooked("forward"), Mine, "in a forward hook"),
    "a pre hook": (lambda: _hooked("pre"), Mine, "in a pre hook"),
    "the keyboard": (lambda: Model(_raise(KeyboardInterrupt())), KeyboardInterrupt, ""),
    "an exit": (lambda: Model(_raise(SystemExit(3))), SystemExit, "3"),
    "a value": (lambda: Model(lambda m, y: _raise(Mine("none"))() if y.sum() < 1e9 else 0), Mine, "none"),
}  # fmt: skip


@pytest.mark.parametrize("phase", ["inference", "training"])
@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.usefixtures("_left_alone")
def test_the_users_own_error_is_shown(name: str, phase: Any) -> None:
    """Its type and text, and the model is as it was."""
    make, kind, text = FAILURES[name]
    model = make()
    before = state(model)
    with pytest.raises(kind, match=text) as raised:
        profile(model, args=(torch.rand(3, 4),), phase=phase)
    assert type(raised.value) is kind
    assert state(model) == before


@pytest.mark.usefixtures("_left_alone")
def test_an_error_of_a_backward_hook_is_shown() -> None:
    """In training alone: inference has no backward pass."""
    model = _hooked("backward")
    before = state(model)
    with pytest.raises(Mine, match="in a backward hook"):
        profile(model, args=(torch.rand(3, 4),), phase="training")
    assert state(model) == before
    assert profile(model, args=(torch.rand(3, 4),)).flops


@pytest.mark.usefixtures("_left_alone")
def test_it_works_after_an_error() -> None:
    """Nothing of the call that failed is left over for the next one."""
    model = Model(_raise(Mine("once")))
    with pytest.raises(Mine):
        profile(model, args=(torch.rand(3, 4),))
    model.act = None
    assert profile(model, args=(torch.rand(3, 4),)) == profile(model, args=(torch.rand(3, 4),))


def test_no_collection_comes_in_a_trace() -> None:
    """It would free what lies in cycles at a moment that depends on what ran before."""
    seen: list[bool] = []
    profile(Model(lambda *_: seen.append(gc.isenabled())), args=(torch.rand(3, 4),))
    assert seen[0] is False


@pytest.mark.usefixtures("_left_alone")
def test_collection_stays_off_where_it_was() -> None:
    """A user who has put it off finds it so."""
    gc.disable()
    try:
        profile(Model(), args=(torch.rand(3, 4),))
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.usefixtures("_left_alone")
def test_a_thread_beside_it_works() -> None:
    """Another model runs for real meanwhile; its work is not booked, and said not to be seen."""
    other, x = nn.Linear(64, 64), torch.rand(8, 64)
    expected = other(x)
    found: list[Tensor] = []
    go, stop = threading.Event(), threading.Event()

    def work() -> None:
        go.wait()
        while not stop.is_set():
            found.append(other(x))

    thread = threading.Thread(target=work)
    thread.start()
    model = Model()
    alone = profile(model, args=(torch.rand(3, 4),)).flops
    go.set()
    beside = {profile(model, args=(torch.rand(3, 4),)).flops for _ in range(20)}
    stop.set()
    thread.join()
    assert beside <= {alone, None}
    assert found
    assert all(type(each) is Tensor and torch.equal(each, expected) for each in found)


@pytest.mark.usefixtures("_left_alone")
@pytest.mark.parametrize("phase", ["inference", "training"])
def test_a_profile_inside_a_forward_works(phase: Any) -> None:
    """Both have their numbers; the outer one is a trace, or a run that says why."""
    inner, x = nn.Linear(8, 8), torch.rand(4, 8)
    seen: list[int | None] = []

    def act(_model: Model, _y: Tensor) -> None:
        seen.append(profile(inner, args=(x,)).flops)

    model = Model(act)
    before = state(model)
    plain = profile(Model(), args=(torch.rand(3, 4),), phase=phase).flops
    found = profile(model, args=(torch.rand(3, 4),), phase=phase)
    assert set(seen) == {512}
    assert found.flops is not None
    assert plain is not None
    assert found.flops - plain in (0, 512)
    assert state(model) == before
