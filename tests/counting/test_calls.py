"""What belongs to a call: gradients taken inside it do, and half of one is no call."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pytest_nnscale.counting.counter import Count, Counter

LINEAR = 2 * 2 * 8 * 8


def counted(run, **options) -> Count:
    with Counter(**options) as counter:
        run()
    return counter.count()


class Force(nn.Module):
    """The gradient of an energy: a forward with a backward in it."""

    def __init__(self):
        super().__init__()
        self.energy = nn.Linear(8, 8)

    def forward(self, x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(self.energy(x).sum(), x, create_graph=self.training)[0]


class FunctionalForce(Force):
    def forward(self, x):
        return torch.func.grad(lambda x: self.energy(x).sum())(x)


@pytest.mark.parametrize("model", [Force, FunctionalForce])
def test_gradient_taken_inside_a_call_is_inference(model):
    """A force model runs its energy forward and backward, and both are its inference."""
    count = counted(lambda: model().eval()(torch.randn(2, 8)))
    assert (count.flops, count.forward_flops, count.backward) == (2 * LINEAR, 2 * LINEAR, False)
    assert {row.path: row.own_flops for row in count.modules} == {"": 0, "energy": 2 * LINEAR}
    assert count.forward_kernels == count.kernels
    assert count.forward_memory_bytes == count.memory_bytes


def test_training_a_force_model_goes_backward_after_its_call():
    """The gradient inside the call stays inference, the one of the loss is the backward pass."""
    model = Force()
    count = counted(lambda: model(torch.randn(2, 8)).pow(2).sum().backward())
    assert count.backward
    assert count.forward_flops == 2 * LINEAR
    assert count.flops > count.forward_flops


def test_recomputation_inside_a_call_belongs_to_the_call():
    """Checkpointing in a force model: forward, forward again and backward are one inference."""

    class Checkpointed(Force):
        def forward(self, x):
            x, energy = x.detach().requires_grad_(), nn.Sequential(self.energy, nn.Tanh())
            energy = checkpoint(energy, x, use_reentrant=False).sum()
            return torch.autograd.grad(energy, x)[0]

    count = counted(lambda: Checkpointed()(torch.randn(2, 8)))
    assert (count.flops, count.forward_flops, count.backward) == (3 * LINEAR, 3 * LINEAR, False)
    assert count.raised == ()  # checkpoint stops the recomputation by an exception of its own


def test_block_can_be_taken_for_one_call():
    """A gradient function is then a call like any other, and its parts sum to it."""
    model = nn.Linear(8, 8)
    gradient = torch.func.grad(lambda x: model(x).sum())
    x = torch.randn(2, 8)
    split = counted(lambda: gradient(x))
    whole = split.as_one_call()
    assert (split.backward, split.forward_flops) == (True, LINEAR)
    assert (whole.backward, whole.forward_flops, whole.flops) == (False, 2 * LINEAR, 2 * LINEAR)
    assert whole.forward_kernels == whole.kernels == split.kernels
    assert whole.forward_memory_bytes == whole.memory_bytes
    assert sum(row.own_flops for row in whole.modules) == whole.forward_flops


class Failing(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.layer, self.error = nn.Linear(8, 8), error

    def forward(self, x):
        self.layer(x)
        raise self.error


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()])
def test_module_that_raised_is_named(error):
    """A call that ended half way is told, also by an error that runs no hook of torch."""
    model = nn.Sequential(Failing(error))

    def run():
        with pytest.raises(type(error)):
            model(torch.randn(2, 8))
        nn.Linear(8, 8)(torch.randn(2, 8))

    # A module that a KeyboardInterrupt left seems to run on, and what follows hangs below it.
    assert counted(run).raised == ("Sequential",)


def test_part_that_raised_is_named_with_its_place():
    """A part called by itself goes by its path."""
    model = nn.Sequential(nn.Linear(8, 8), Failing(ValueError()))

    def run():
        model[0](torch.randn(2, 8))
        with pytest.raises(ValueError):  # noqa: PT011 - it has no message
            model[1](torch.randn(2, 8))

    assert counted(run, roots=[model]).raised == ("1 (Failing)",)


def test_error_caught_inside_a_call_is_part_of_it():
    """A model that falls back when a part of it fails has run all that it runs."""

    class Falling(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = Failing(ValueError())

        def forward(self, x):
            try:
                return self.first(x)
            except ValueError:
                return x + 1

    count = counted(lambda: Falling()(torch.randn(2, 8)))
    assert (count.raised, count.flops) == ((), LINEAR)


def test_call_inside_an_exception_handler_did_not_raise():
    """A fallback model runs while an error is handled, returns nothing, and is a full call."""

    class Silent(nn.Module):
        def forward(self, x):
            self.seen = x + 1

    def run():
        try:
            raise ValueError
        except ValueError:
            Silent()(torch.ones(1))

    assert counted(run).raised == ()
