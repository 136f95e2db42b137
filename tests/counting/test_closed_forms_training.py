"""A training step: forward, backward, what is computed again, and the optimiser."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import pytest_nnscale

ROWS, IN, OUT = 3, 8, 4
STEP = 2 * (2 * ROWS * IN * OUT)  # forward, and the gradient of the weight
WAYS = {
    "plain": {},
    "foreach": {"foreach": True},
    "one by one": {"foreach": False},
    "fused": {"fused": True},
}
OPTIONS = {
    torch.optim.SGD: ({}, {"momentum": 0.9, "nesterov": True}, {"maximize": True}),
    torch.optim.Adam: ({}, {"amsgrad": True, "weight_decay": 0.1}),
    torch.optim.AdamW: ({}, {"amsgrad": True}),
    torch.optim.RMSprop: ({}, {"centered": True, "momentum": 0.9}),
    torch.optim.Adagrad: ({}, {"weight_decay": 0.1}),
    torch.optim.Adadelta: ({}, {"weight_decay": 0.1}),
    torch.optim.NAdam: ({}, {"decoupled_weight_decay": True, "weight_decay": 0.1}),
    torch.optim.RAdam: ({}, {"decoupled_weight_decay": True, "weight_decay": 0.1}),
    torch.optim.Adamax: ({}, {"weight_decay": 0.1}),
    torch.optim.ASGD: ({}, {"weight_decay": 0.1}),
    torch.optim.Rprop: ({}, {"maximize": True}),
}
FUSED = {torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad}


def linear():
    return nn.Linear(IN, OUT, bias=False)


def flops(model, *inputs, **options):
    found = pytest_nnscale.profile(model, inputs, phase="training", metrics=("flops",), **options)
    assert found.uncounted == (), found.uncounted
    return found.flops


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", OPTIONS, ids=lambda kind: kind.__name__)
def test_optimisers_contract_nothing(kind, way):
    """Moments and updates are elementwise, however they are computed; none is unknown."""
    if way == "fused" and kind not in FUSED:
        with pytest.raises(TypeError):  # it would count, and be tested here, if torch had it
            kind(linear().parameters(), **WAYS[way])
        return
    for options in OPTIONS[kind]:
        found = flops(
            linear(),
            torch.randn(ROWS, IN),
            optimizer=lambda weights: kind(weights, **WAYS[way], **options),  # noqa: B023
        )
        assert found == STEP


@pytest.mark.parametrize("steps", [5, 3])
@pytest.mark.parametrize(("wide", "high"), [(8, 4), (4, 8)])
def test_muon_makes_three_products_of_every_weight_in_each_step_of_its_iteration(steps, wide, high):
    """X X', its square, and their sum by X, with the short side of X first (K. Jordan, 2024)."""
    model, x = nn.Linear(wide, high, bias=False), torch.randn(ROWS, wide)
    short, long = 4, 8
    products = 2 * short * long * short + 2 * short**3 + 2 * short * short * long
    found = flops(model, x, optimizer=lambda p: torch.optim.Muon(p, ns_steps=steps))
    assert found == STEP + steps * products


def test_adafactor_makes_one_product_of_the_factors_of_every_weight():
    """A column of row means by a row of column means (N. Shazeer, M. Stern, 2018)."""
    found = flops(linear(), torch.randn(ROWS, IN), optimizer=torch.optim.Adafactor)
    assert found == STEP + 2 * IN * OUT


def test_lbfgs_counts_what_its_closure_does():
    """It calls the model itself, once for each evaluation, and joins directions by dot products."""
    model, x = linear(), torch.randn(ROWS, IN)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=1)
    calls = []

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        return loss

    with pytest_nnscale.count() as counting:
        optimizer.step(closure)
    assert counting.profile.uncounted == ()
    assert counting.profile.flops == len(calls) * STEP + 2 * IN * OUT  # gradient by direction


class Block(nn.Module):
    """Two square layers, recomputed or not."""

    def __init__(self, reentrant, *, stops=True):
        super().__init__()
        self.first = nn.Linear(IN, IN, bias=False)
        self.second = nn.Linear(IN, IN, bias=False)
        self.reentrant, self.stops = reentrant, stops

    def body(self, x):
        return self.second(self.first(x).relu())

    def forward(self, x):
        if self.reentrant is None:
            return self.body(x)
        stops = {} if self.reentrant else {"early_stop": self.stops}
        return checkpoint(self.body, x, use_reentrant=self.reentrant, **stops)


ONE = 2 * ROWS * IN * IN


@pytest.mark.parametrize(
    ("block", "again"),
    [
        (Block(None), 0),
        (Block(True), 2 * ONE),
        # What the backward needs is there before the last layer: torch stops in front of it.
        (Block(False), ONE),
        (Block(False, stops=False), 2 * ONE),
    ],
    ids=["kept", "reentrant", "not reentrant", "to the end"],
)
def test_recomputation_under_checkpointing_is_counted(block, again):
    """Forward, backward of both operands of both layers, and what was computed once more."""
    x = torch.randn(ROWS, IN, requires_grad=True)
    assert flops(block, x) == 6 * ONE + again
    with pytest_nnscale.count() as counting:
        block(x).sum().backward()
    assert counting.profile.flops == 6 * ONE + again


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_parts_computes_all_but_the_last_again(reentrant):
    """`checkpoint_sequential` keeps what the last part made."""
    model = nn.Sequential(
        *(nn.Sequential(nn.Linear(IN, IN, bias=False), nn.ReLU()) for _ in "1234")
    )
    x = torch.randn(ROWS, IN, requires_grad=True)
    found = flops(lambda x: checkpoint_sequential(model, 2, x, use_reentrant=reentrant), x)
    assert found == 3 * 4 * ONE + 2 * ONE


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_inference_computes_nothing_again():
    """Without a backward there is nothing to compute for."""
    for reentrant in (None, False, True):
        block, x = Block(reentrant), torch.randn(ROWS, IN)
        assert pytest_nnscale.profile(block, (x,), metrics=("flops",)).flops == 2 * ONE


def test_frozen_weights_have_no_gradient():
    """Gradients pass through a frozen layer, and stop before a frozen first one."""
    first, second = Block(None), Block(None)
    for weight in second.parameters():
        weight.requires_grad_(False)
    x = torch.randn(ROWS, IN)
    model = nn.Sequential(first, second)
    # Four forwards; through three layers to the first one; two weights.
    assert flops(model, x) == (4 + 3 + 2) * ONE
    assert flops(nn.Sequential(second, first), x) == (4 + 1 + 2) * ONE


def test_every_part_of_a_step_adds_up():
    """Forward, loss, backward and optimiser: here with contractions in all of them."""
    model, metric = linear(), torch.ones(OUT, OUT)
    x = torch.randn(ROWS, IN)
    found = flops(
        model, x, loss=lambda y: ((y @ metric) * y).sum(), optimizer=torch.optim.Adafactor
    )
    assert found == STEP + 2 * (2 * ROWS * OUT * OUT) + 2 * IN * OUT


def test_accumulated_gradients_are_as_many_products():
    """Adding to a gradient that is there is elementwise work."""
    model, x = linear(), torch.randn(ROWS, IN)
    with pytest_nnscale.count() as counting:
        for _ in range(3):
            model(x).sum().backward()
    assert counting.profile.flops == 3 * STEP


def test_second_derivatives_are_counted():
    """The backward of a backward has the products of both its factors."""
    model, x = linear(), torch.randn(ROWS, IN, requires_grad=True)
    one = 2 * ROWS * IN * OUT
    with pytest_nnscale.count() as counting:
        (gradient,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
    assert counting.profile.flops == 2 * one
    with pytest_nnscale.count() as counting:
        gradient.square().sum().backward()
    # Of gradient = 2 y W: y and W each by a product; then through y = x W': x and W.
    assert counting.profile.flops == 4 * one
