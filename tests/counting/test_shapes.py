"""What shapes foretell of modules is what a CPU gives: operator by operator, to the strides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

LAST, LAST_3D = torch.channels_last, torch.channels_last_3d
r = torch.rand


def last(x: Tensor) -> Tensor:
    return x.to(memory_format=LAST if x.ndim == 4 else LAST_3D)


def half(*size: int) -> Tensor:
    return r(size, dtype=torch.bfloat16)


Case = tuple[Callable[[], nn.Module], Callable[[], Any]]

NORMS: dict[str, Case] = {
    "batch 1d, rows": (lambda: nn.BatchNorm1d(4), lambda: r(3, 4)),
    "batch 1d, steps": (lambda: nn.BatchNorm1d(4), lambda: r(3, 4, 7)),
    "batch 2d": (lambda: nn.BatchNorm2d(3), lambda: r(2, 3, 4, 5)),
    "batch 2d, channels last": (lambda: nn.BatchNorm2d(3), lambda: last(r(2, 3, 4, 5))),
    "batch 2d, bfloat16": (lambda: nn.BatchNorm2d(3).bfloat16(), lambda: half(2, 3, 4, 5)),
    "batch 2d, mixed": (lambda: nn.BatchNorm2d(3), lambda: half(2, 3, 4, 5)),
    "batch 2d, transposed": (lambda: nn.BatchNorm2d(3), lambda: r(2, 3, 4, 5).transpose(2, 3)),
    "batch 2d, a part": (lambda: nn.BatchNorm2d(3), lambda: r(2, 6, 4, 5)[:, ::2]),
    "batch 2d, one pixel": (lambda: nn.BatchNorm2d(3), lambda: last(r(2, 3, 1, 1))),
    "batch 2d, plain": (lambda: nn.BatchNorm2d(3, affine=False), lambda: r(2, 3, 4, 5)),
    "batch 2d, untracked": (
        lambda: nn.BatchNorm2d(3, track_running_stats=False),
        lambda: r(2, 3, 4, 5),
    ),
    "batch 3d": (lambda: nn.BatchNorm3d(4), lambda: r(2, 4, 3, 3, 3)),
    "batch 3d, channels last": (lambda: nn.BatchNorm3d(4), lambda: last(r(2, 4, 3, 3, 3))),
    "layer": (lambda: nn.LayerNorm(4), lambda: r(3, 5, 4)),
    "layer, two axes": (lambda: nn.LayerNorm((5, 4)), lambda: r(3, 5, 4)),
    "layer, transposed": (lambda: nn.LayerNorm(4), lambda: r(5, 3, 4).transpose(0, 1)),
    "layer, plain": (lambda: nn.LayerNorm(4, elementwise_affine=False), lambda: r(3, 4)),
    "layer, no bias": (lambda: nn.LayerNorm(4, bias=False), lambda: r(3, 4)),
    "layer, bfloat16": (lambda: nn.LayerNorm(4).bfloat16(), lambda: half(3, 4)),
    "layer, mixed": (lambda: nn.LayerNorm(4), lambda: half(3, 4)),
    "group": (lambda: nn.GroupNorm(2, 4), lambda: r(3, 4, 5)),
    "group, images": (lambda: nn.GroupNorm(2, 4), lambda: r(2, 4, 5, 5)),
    "group, channels last": (lambda: nn.GroupNorm(2, 4), lambda: last(r(2, 4, 5, 5))),
    "group, volumes": (lambda: nn.GroupNorm(2, 4), lambda: last(r(2, 4, 5, 5, 3))),
    "group, mixed": (lambda: nn.GroupNorm(2, 4), lambda: half(2, 4, 5, 5)),
    "group, plain": (lambda: nn.GroupNorm(2, 4, affine=False), lambda: r(2, 4, 5)),
    "instance": (lambda: nn.InstanceNorm2d(3), lambda: r(2, 3, 4, 4)),
    "instance, affine": (lambda: nn.InstanceNorm2d(3, affine=True), lambda: r(2, 3, 4, 4)),
    "instance, tracked": (
        lambda: nn.InstanceNorm1d(3, track_running_stats=True),
        lambda: r(2, 3, 4),
    ),
    "instance, channels last": (lambda: nn.InstanceNorm2d(3), lambda: last(r(2, 3, 4, 4))),
    "rms": (lambda: nn.RMSNorm(4), lambda: r(3, 5, 4)),
    "rms, bfloat16": (lambda: nn.RMSNorm(4).bfloat16(), lambda: half(3, 5, 4)),
    "local response": (lambda: nn.LocalResponseNorm(2), lambda: r(1, 4, 3, 3)),
}

CONVOLUTIONS: dict[str, Case] = {
    "1d": (lambda: nn.Conv1d(4, 8, 3), lambda: r(2, 4, 9)),
    "1d, groups": (lambda: nn.Conv1d(4, 8, 3, groups=2), lambda: r(2, 4, 9)),
    "1d, unbatched": (lambda: nn.Conv1d(4, 8, 3), lambda: r(4, 9)),
    "1d, steps last": (lambda: nn.Conv1d(4, 8, 3), lambda: r(2, 9, 4).transpose(1, 2)),
    "2d": (lambda: nn.Conv2d(3, 4, 3), lambda: r(2, 3, 7, 8)),
    "2d, no bias": (lambda: nn.Conv2d(3, 4, 3, bias=False), lambda: r(2, 3, 7, 8)),
    "2d, unbatched": (lambda: nn.Conv2d(3, 4, 3), lambda: r(3, 7, 8)),
    "2d, stride": (lambda: nn.Conv2d(3, 4, 3, (2, 3), 1), lambda: r(2, 3, 7, 8)),
    "2d, dilated": (lambda: nn.Conv2d(3, 4, 3, dilation=2), lambda: r(2, 3, 7, 8)),
    "2d, depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), lambda: r(2, 4, 7, 8)),
    "2d, same": (lambda: nn.Conv2d(3, 4, 4, padding="same"), lambda: r(2, 3, 7, 8)),
    "2d, reflect": (
        lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
        lambda: r(2, 3, 7, 8),
    ),
    "2d, 1x1": (lambda: nn.Conv2d(3, 4, 1), lambda: r(2, 3, 7, 8)),
    "2d, one pixel": (lambda: nn.Conv2d(3, 4, 1), lambda: r(2, 3, 1, 1)),
    "2d, one channel": (lambda: nn.Conv2d(1, 1, 3), lambda: r(2, 1, 7, 7)),
    "2d, images last": (lambda: nn.Conv2d(3, 4, 3), lambda: last(r(2, 3, 7, 8))),
    "2d, weights last": (lambda: last_weights(nn.Conv2d(3, 4, 3)), lambda: r(2, 3, 7, 8)),
    "2d, a part": (lambda: nn.Conv2d(3, 4, 3), lambda: r(2, 3, 9, 9)[:, :, 1:8, ::2]),
    "2d, expanded": (lambda: nn.Conv2d(3, 4, 3), lambda: r(2, 1, 7, 8).expand(2, 3, 7, 8)),
    "2d, bfloat16": (lambda: nn.Conv2d(3, 4, 3).bfloat16(), lambda: half(2, 3, 7, 8)),
    "2d, double": (lambda: nn.Conv2d(3, 4, 3).double(), lambda: r(2, 3, 7, 8).double()),
    "3d": (lambda: nn.Conv3d(2, 4, 3), lambda: r(1, 2, 5, 6, 7)),
    "3d, last": (lambda: nn.Conv3d(2, 4, 3, 2, 1), lambda: last(r(2, 2, 5, 6, 7))),
    "transposed 1d": (lambda: nn.ConvTranspose1d(2, 4, 3, stride=2), lambda: r(1, 2, 5)),
    "transposed 2d": (
        lambda: nn.ConvTranspose2d(4, 8, 3, 2, 1, 1, groups=2),
        lambda: r(2, 4, 9, 9),
    ),
    "transposed 2d, dilated": (
        lambda: nn.ConvTranspose2d(4, 8, 3, dilation=2),
        lambda: r(2, 4, 9, 9),
    ),
    "transposed 2d, last": (lambda: nn.ConvTranspose2d(4, 8, 3), lambda: last(r(2, 4, 9, 9))),
    "transposed 3d": (lambda: nn.ConvTranspose3d(2, 4, 3), lambda: r(1, 2, 5, 6, 7)),
}

POOLS_AND_PADS: dict[str, Case] = {
    "average": (lambda: nn.AvgPool2d(2), lambda: r(2, 3, 7, 7)),
    "average, last": (lambda: nn.AvgPool2d(2), lambda: last(r(2, 3, 7, 7))),
    "average 1d": (lambda: nn.AvgPool1d(2), lambda: r(2, 3, 7)),
    "average 3d": (lambda: nn.AvgPool3d(2), lambda: r(2, 3, 7, 7, 7)),
    "adaptive": (lambda: nn.AdaptiveAvgPool2d(2), lambda: r(2, 3, 7, 7)),
    "adaptive, last": (lambda: nn.AdaptiveAvgPool2d(2), lambda: last(r(2, 3, 7, 7))),
    "adaptive to one": (lambda: nn.AdaptiveAvgPool2d(1), lambda: r(2, 3, 7, 7)),
    "adaptive to one, last": (lambda: nn.AdaptiveAvgPool2d(1), lambda: last(r(2, 3, 7, 7))),
    "adaptive 1d": (lambda: nn.AdaptiveAvgPool1d(2), lambda: r(2, 3, 7)),
    "adaptive 3d": (lambda: nn.AdaptiveAvgPool3d(2), lambda: r(2, 3, 7, 7, 7)),
    "adaptive max": (lambda: nn.AdaptiveMaxPool2d(2), lambda: r(2, 3, 7, 7)),
    "max": (lambda: nn.MaxPool2d(3, 2, 1), lambda: r(2, 3, 7, 7)),
    "max, last": (lambda: nn.MaxPool2d(3, 2, 1), lambda: last(r(2, 3, 7, 7))),
    "max, ceiling": (lambda: nn.MaxPool2d(2, ceil_mode=True), lambda: r(2, 3, 7, 7)),
    "max 1d": (lambda: nn.MaxPool1d(2), lambda: r(2, 3, 7)),
    "max 3d": (lambda: nn.MaxPool3d(2), lambda: r(2, 3, 7, 7, 7)),
    "fractional": (lambda: nn.FractionalMaxPool2d(2, 3), lambda: r(2, 3, 7, 7)),
    "power": (lambda: nn.LPPool2d(2, 2), lambda: r(2, 3, 7, 7)),
    "zeros": (lambda: nn.ZeroPad2d(1), lambda: r(1, 2, 4, 4)),
    "zeros, last": (lambda: nn.ZeroPad2d(1), lambda: last(r(1, 2, 4, 4))),
    "reflect": (lambda: nn.ReflectionPad2d(1), lambda: r(1, 2, 4, 4)),
    "reflect, last": (lambda: nn.ReflectionPad2d(1), lambda: last(r(1, 2, 4, 4))),
    "replicate": (lambda: nn.ReplicationPad2d(1), lambda: r(1, 2, 4, 4)),
    "circular": (lambda: nn.CircularPad2d(1), lambda: r(1, 2, 4, 4)),
    "nearest": (lambda: nn.Upsample(scale_factor=2), lambda: r(1, 2, 4)),
    "nearest, last": (lambda: nn.Upsample(scale_factor=2), lambda: last(r(1, 2, 4, 4))),
    "bilinear": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), lambda: r(1, 2, 4, 4)),
    "bilinear, last": (
        lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
        lambda: last(r(1, 2, 4, 4)),
    ),
    "bicubic": (lambda: nn.Upsample(scale_factor=2, mode="bicubic"), lambda: r(1, 2, 4, 4)),
    "shuffle": (lambda: nn.PixelShuffle(2), lambda: r(1, 4, 3, 3)),
    "unshuffle": (lambda: nn.PixelUnshuffle(2), lambda: r(1, 1, 4, 4)),
    "unfold": (lambda: nn.Unfold(2), lambda: r(1, 2, 4, 4)),
    "fold": (lambda: nn.Fold((4, 4), 2), lambda: r(1, 8, 9)),
}


def last_weights(module: nn.Module) -> nn.Module:
    return module.to(memory_format=LAST)


ACTIVATIONS = [
    "CELU",
    "ELU",
    "GELU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "RReLU",
    "ReLU",
    "ReLU6",
    "SELU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Dropout",
    "Dropout2d",
    "AlphaDropout",
    "FeatureAlphaDropout",
    "Flatten",
]
for name in ACTIVATIONS:
    POOLS_AND_PADS[name] = (getattr(nn, name), lambda: r(2, 4, 3, 3))
    POOLS_AND_PADS[f"{name}, last"] = (getattr(nn, name), lambda: last(r(2, 4, 3, 3)))
    POOLS_AND_PADS[f"{name}, one pixel"] = (getattr(nn, name), lambda: last(r(2, 4, 1, 1)))


def once(set_beside: Any, make: Callable[[], nn.Module], given: Any, *, train: bool) -> Any:
    """Run a module, and its backward pass where it has one, beside what shapes foretell."""
    torch.manual_seed(0)
    module = make().train(train)
    inputs = given if isinstance(given, tuple) else (given,)
    inputs = tuple(
        x.detach().requires_grad_() if train and x.is_floating_point() else x for x in inputs
    )
    mode = set_beside()
    with torch.set_grad_enabled(train), mode:
        out = module(*inputs)
        outs = [t for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, Tensor)]
        if train:
            torch.autograd.backward([t.float().square().sum() for t in outs if t.requires_grad])
    return mode


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{family}-{name}")
        for family, cases in (
            ("norm", NORMS),
            ("convolution", CONVOLUTIONS),
            ("plain", POOLS_AND_PADS),
        )
        for name, case in cases.items()
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_module_gives_what_its_shapes_foretell(set_beside: Any, case: Case, train: bool) -> None:
    """Size, strides, dtype, bytes and aliasing of each operator, forward and backward."""
    make, given = case
    mode = once(set_beside, make, given(), train=train)
    assert not mode.wrong, "\n".join(mode.wrong)
    assert not mode.refused
