"""After `preserved`, modules, tensors, random numbers and grad mode are as they were."""

import hashlib
import random

import pytest
import torch
from torch import nn

from pytest_nnscale.counting.counter import Counter
from pytest_nnscale.preservation.keepsake import preserved


class Restless(nn.Module):
    """Changes about itself whatever a forward can change."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("tracked", torch.zeros(4))
        self.calls = 0
        self.history = []

    def forward(self, x):
        self.calls += 1
        self.history.append(x.shape)
        self.cache = x
        y = self.dropout(self.norm(self.linear(x)))
        self.tracked += y.detach().mean(0)
        self.tracked = self.tracked * 2
        self.norm.eval()
        self.linear.bias.requires_grad_(False)
        self.linear.register_forward_hook(lambda *_: None)
        torch.set_grad_enabled(False)
        random.random()
        if self.calls > 5:
            raise ValueError("too often")
        return y


def fingerprint(model: nn.Module) -> dict[str, str]:
    """Hash everything about a model and the random number generators, part by part."""
    seen: dict[str, list[object]] = {"random": [random.getstate(), torch.get_rng_state().tolist()]}
    seen["gradients"] = [torch.is_grad_enabled()]
    for name, part in model.named_modules():
        seen[f"{name} attributes"] = [
            (key, id(value), repr(value) if isinstance(value, list | dict | bool | int) else "")
            for key, value in vars(part).items()
        ]
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"):
            seen[f"{name} {kind}"] = list(getattr(part, kind).items())
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        seen[name] = [
            id(tensor),
            tensor.data_ptr(),
            tensor.tolist(),
            tensor._version,
            tensor.requires_grad,
            tensor.grad_fn,
            id(tensor.grad),
            tensor.grad.tolist() if tensor.grad is not None else None,
        ]
    return {key: hashlib.sha256(repr(value).encode()).hexdigest() for key, value in seen.items()}


@pytest.fixture
def model():
    model = Restless()
    (model.linear(torch.randn(3, 4))).sum().backward()
    return model


@pytest.mark.parametrize("calls", [0, 5], ids=["returns", "raises"])
def test_model_is_left_as_found(model, calls):
    """A forward that changes all about its model has changed nothing, also one that raises."""
    model.calls = calls
    before = fingerprint(model)
    failure = None
    try:
        with preserved([model]):
            model(torch.randn(3, 4))
    except ValueError as error:
        failure = error
    assert (failure is not None) is (calls == 5)
    assert fingerprint(model) == before


@pytest.mark.parametrize("calls", [0, 5], ids=["returns", "raises"])
def test_counted_model_is_left_as_found(model, calls):
    """A preserving counter alone leaves the model as found, training step included."""
    model.calls = calls
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = fingerprint(model)
    counter = Counter(preserve=True)
    try:
        with counter:
            output = model(torch.randn(3, 4))
            torch.set_grad_enabled(True)
            output.sum().backward()
            optimizer.step()
    except ValueError:
        pass
    counter.restore()
    assert counter.count().flops > 0
    assert fingerprint(model) == before


def test_parameters_are_copied_only_when_handed_over(model):
    """That undoes a write to weights, at the price of their copy."""
    before = fingerprint(model)
    with preserved([model], model.parameters()), torch.no_grad():
        model.linear.weight.zero_()
    assert fingerprint(model) == before


def test_tensors_handed_over_are_put_back():
    """Inputs that a model writes in place keep their values and version counters."""
    x = torch.ones(3)
    with preserved([], [x]):
        x.mul_(2)
        x.data.add_(1)
    assert x.tolist() == [1, 1, 1]
    assert x._version == 0


def test_data_pointed_elsewhere_is_pointed_back(model):
    """`parameter.data = ...`, as conversions do it, is undone without a copy."""
    before = fingerprint(model)
    with preserved([model]):
        model.double()
    assert fingerprint(model) == before


def test_buffer_that_joined_a_graph_leaves_it():
    """A buffer updated with gradients on acquires a grad_fn, and loses it again."""
    module = nn.Linear(2, 2)
    module.register_buffer("mean", torch.zeros(2))
    with preserved([module]):
        module.mean += module(torch.ones(2))
        assert module.mean.grad_fn is not None
    assert module.mean.grad_fn is None
    assert module.mean.tolist() == [0, 0]
    assert not module.mean.requires_grad


def test_buffer_that_was_resized_is_as_small_as_before():
    """Observers of quantisation start empty and grow in their first forward."""
    module = nn.Linear(2, 2)
    module.register_buffer("least", torch.empty(0))

    def grow(self, _inputs):
        self.least.resize_(3).fill_(1)

    module.register_forward_pre_hook(grow)
    before = fingerprint(module)
    counter = Counter(preserve=True)
    with counter:
        module(torch.ones(1, 2))
    assert module.least.shape == (3,)
    counter.restore()
    assert module.least.untyped_storage().nbytes() == 0
    # An empty tensor has no address of its own to compare.
    after = fingerprint(module)
    assert {name for name in before if before[name] != after[name]} <= {"least"}
    assert module.least.shape == (0,)


def test_lazy_module_stays_initialised():
    """A first forward gives a lazy module its weights; it keeps them, and works."""
    model = nn.Sequential(nn.LazyLinear(3))
    counter = Counter(preserve=True)
    with preserved([model]), counter:
        model(torch.ones(2, 5))
    counter.restore()
    assert model[0].weight.shape == (3, 5)
    assert model(torch.ones(2, 5)).shape == (2, 3)
    assert counter.count().flops == 2 * 2 * 5 * 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_scripted_module_keeps_its_mode():
    """A scripted module holds its training flag elsewhere; it is put back all the same."""
    model = torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.Dropout()))
    with preserved([model]):
        model.eval()
    assert model.training
    assert model[1].training


def test_numpy_draws_are_put_back():
    """NumPy's global generator is one of the generators in use."""
    numpy = pytest.importorskip("numpy")
    state = numpy.random.get_state()[1].copy()
    with preserved([]):
        numpy.random.rand()
    assert (numpy.random.get_state()[1] == state).all()


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_are_put_back(layout):
    """torch cannot compare jagged ones, and they are none the worse for it."""
    nested = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)], layout=layout)
    with preserved([], [nested]):
        nested.mul_(2)
    assert [part.tolist() for part in nested.unbind()] == [[[1.0] * 3] * 2, [[1.0] * 3]]
