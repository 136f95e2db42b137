"""A traced training step counts what a run of it counts; and so do models of torchvision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_nnscale import profile

r = torch.rand


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))


OPTIMISERS = [
    "SGD",
    "Adam",
    "AdamW",
    "RMSprop",
    "Adagrad",
    "Adadelta",
    "NAdam",
    "RAdam",
    "Adamax",
    "ASGD",
    "Rprop",
]


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.filterwarnings("ignore")
def test_a_step_of_an_optimiser_equals_a_run(both: Any, name: str) -> None:
    """Its state is held, and its kernels are counted."""
    kind = getattr(torch.optim, name)
    count = both(model(), (r(4, 8),), "training", optimizer=lambda ps: kind(ps, lr=0.1))
    state = dict(count.held).get("optimizer", 0)
    assert state > 0 or name in ("SGD", "Adagrad")  # the latter makes it before it steps


@pytest.mark.parametrize(
    "how",
    [
        {"momentum": 0.9, "nesterov": True},
        {"weight_decay": 0.1},
        {"foreach": True},
    ],
    ids=str,
)
def test_a_way_to_step_equals_a_run(both: Any, how: dict[str, Any]) -> None:
    """Options of an optimiser change which kernels run."""
    both(model(), (r(4, 8),), "training", optimizer=lambda ps: torch.optim.SGD(ps, lr=0.1, **how))


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "mse": lambda out: functional.mse_loss(out, torch.zeros(4, 4)),
    "l1": lambda out: functional.l1_loss(out, torch.zeros(4, 4)),
    "smooth_l1": lambda out: functional.smooth_l1_loss(out, torch.zeros(4, 4)),
    "huber": lambda out: functional.huber_loss(out, torch.zeros(4, 4)),
    "cross_entropy": lambda out: functional.cross_entropy(out, torch.zeros(4, dtype=torch.long)),
    "bce": lambda out: functional.binary_cross_entropy(out.sigmoid(), torch.zeros(4, 4)),
    "bce, logits": lambda out: functional.binary_cross_entropy_with_logits(out, torch.ones(4, 4)),
    "kl_div": lambda out: functional.kl_div(out.log_softmax(1), torch.ones(4, 4) / 4),
    "soft_margin": lambda out: functional.soft_margin_loss(out, torch.ones(4, 4)),
    "norm": lambda out: out.norm() + out.square().mean(),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.filterwarnings("ignore")
def test_a_loss_equals_a_run(both: Any, name: str) -> None:
    """What a loss allocates is held until its backward pass has come through."""
    both(model(), (r(4, 8),), "training", loss=LOSSES[name])


def test_a_second_gradient_equals_a_run(both: Any) -> None:
    """A penalty on a gradient is a backward pass of a backward pass."""

    class Penalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))

        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                (slope,) = torch.autograd.grad(self.inner(x).sum(), x, create_graph=True)
            return slope.square().sum()

    assert both(Penalised(), (r(4, 8),), "training").flops


def test_gradients_that_are_there_equal_a_run(both: Any) -> None:
    """A second backward pass adds to them: they are held, and one more kernel runs."""
    trained = model()
    trained(r(4, 8)).sum().backward()
    before = [parameter.grad.clone() for parameter in trained.parameters()]
    both(trained, (r(4, 8),), "training")
    after = [parameter.grad for parameter in trained.parameters()]
    assert all(map(torch.equal, before, after))


def test_frozen_parts_equal_a_run(both: Any) -> None:
    """No gradient of theirs is taken."""
    frozen = model()
    frozen[0].requires_grad_(False)
    both(frozen, (r(4, 8),), "training")


@pytest.mark.parametrize("how", ["a function of its own", "a gradient scaled"])
def test_a_backward_of_ones_own_equals_a_run(both: Any, how: str) -> None:
    """torch.autograd.Function and hooks on tensors run as they are, on shapes."""

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return gradient * 2 + 0 * (x @ x.T).sum()

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.inner(x)
            if how == "a gradient scaled":
                y.register_hook(lambda gradient: gradient * 2)
                return y
            return Doubled.apply(y)

    both(Own(), (r(4, 8),), "training")


def test_gradient_of_an_input_equals_a_run(both: Any) -> None:
    """An input that needs one is a leaf like a weight, and has none afterwards."""
    x = r(4, 8).requires_grad_()
    both(model(), (x,), "training")
    assert x.grad is None


def _classes(name: str, size: int = 64, **how: Any) -> Any:
    return lambda torchvision: (
        torchvision.models.get_model(name, weights=None, **how),
        (r(2, 3, size, size),),
    )


ZOO: dict[str, Callable[[Any], tuple[nn.Module, tuple[Any, ...]]]] = {
    **{
        name: _classes(name)
        for name in [
            "alexnet",
            "resnet18",
            "wide_resnet50_2",
            "resnext50_32x4d",
            "densenet121",
            "mobilenet_v2",
            "mobilenet_v3_small",
            "efficientnet_b0",
            "shufflenet_v2_x1_0",
            "squeezenet1_1",
            "regnet_y_400mf",
            "mnasnet0_5",
            "convnext_tiny",
            "swin_t",
            "swin_v2_t",
            "vgg11_bn",
        ]
    },
    "googlenet": _classes("googlenet", init_weights=False),
    "inception_v3": _classes("inception_v3", 96, init_weights=False, aux_logits=False),
    "vit_b_32": _classes("vit_b_32", 64, image_size=64),
    "maxvit_t": lambda tv: (
        tv.models.MaxVit((64, 64), 8, 2, [8, 8], [1, 1], 4, 0.0),
        (r(2, 3, 64, 64),),
    ),
    "fcn_resnet50": lambda tv: (
        tv.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None),
        (r(2, 3, 64, 64),),
    ),
    "deeplabv3_mobilenet": lambda tv: (
        tv.models.segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None),
        (r(2, 3, 64, 64),),
    ),
    "r3d_18": lambda tv: (tv.models.video.r3d_18(weights=None), (r(2, 3, 4, 32, 32),)),
    "swin3d_t": lambda tv: (tv.models.video.swin3d_t(weights=None), (r(1, 3, 4, 32, 32),)),
}


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["inference", "training"])
@pytest.mark.parametrize("name", ZOO)
@pytest.mark.filterwarnings("ignore")
def test_a_model_of_the_zoo_equals_a_run(both: Any, name: str, phase: Any) -> None:
    """Every field of the count, in both phases."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    network, inputs = ZOO[name](torchvision)
    assert both(network.train(phase == "training"), inputs, phase).flops


def test_steps_are_traced_by_profile() -> None:
    """A whole step needs no values."""
    found = profile(
        model(), args=(r(4, 8),), phase="training", loss=LOSSES["mse"], optimizer=torch.optim.Adam
    )
    assert found.method == "traced"
