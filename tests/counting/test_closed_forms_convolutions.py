"""Convolutions in one to three dimensions: forward, and each of their two gradients once more."""

import math

import pytest
import torch
from torch import nn

import pytest_nnscale

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
IN, OUT, SIZE, SIDE, BATCH = 4, 8, 3, 7, 2
OPTIONS = {
    "plain": {},
    "strided": {"stride": 2},
    "dilated": {"dilation": 2},
    "strided and dilated": {"stride": 2, "dilation": 2, "padding": 2},
    "padded": {"padding": 1},
    "grouped": {"groups": 2},
    "depthwise": {"groups": IN},  # with two outputs for each input
    "without bias": {"bias": False},
}
PADDED = {
    "same": {"padding": "same"},
    "circular": {"padding": 1, "padding_mode": "circular"},
    "reflected": {"padding": 1, "padding_mode": "reflect"},
}


def out_side(stride=1, dilation=1, padding=0, **_):
    """How many positions of a kernel there are along one axis."""
    return (SIDE + 2 * padding - dilation * (SIZE - 1) - 1) // stride + 1


def flops(model, *inputs, phase="inference"):
    found = pytest_nnscale.profile(model, inputs, phase=phase, metrics=("flops",))
    assert found.uncounted == (), found.uncounted
    return found.flops


def all_phases(model, x, *others):
    """Return the forward, the training, and the training with gradients of the input, in FLOP."""
    needs = x.clone().requires_grad_()
    return (
        flops(model, x, *others),
        flops(model, x, *others, phase="training"),
        flops(model, needs, *others, phase="training"),
    )


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("name", OPTIONS)
def test_convolution(axes, name):
    """Each output number meets the kernel of its channel."""
    options = OPTIONS[name]
    model = CONV[axes](IN, OUT, SIZE, **options)
    kernel = IN // options.get("groups", 1) * SIZE**axes
    forward = 2 * BATCH * OUT * out_side(**options) ** axes * kernel
    x = torch.randn(BATCH, IN, *[SIDE] * axes)
    assert all_phases(model, x) == (forward, 2 * forward, 3 * forward)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("name", OPTIONS)
def test_transposed_convolution(axes, name):
    """Each input number meets all kernels of its channel, whatever stride and dilation are."""
    options = OPTIONS[name]
    model = TRANSPOSED[axes](IN, OUT, SIZE, **options)
    forward = 2 * BATCH * IN * SIDE**axes * OUT // options.get("groups", 1) * SIZE**axes
    x = torch.randn(BATCH, IN, *[SIDE] * axes)
    assert all_phases(model, x) == (forward, 2 * forward, 3 * forward)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("name", PADDED)
def test_padding_of_another_kind(axes, name):
    """Numbers that padding made are multiplied like any others."""
    model = CONV[axes](IN, OUT, SIZE, **PADDED[name])
    forward = 2 * BATCH * OUT * SIDE**axes * IN * SIZE**axes
    x = torch.randn(BATCH, IN, *[SIDE] * axes)
    assert all_phases(model, x) == (forward, 2 * forward, 3 * forward)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_neither_the_type_nor_the_layout_of_numbers_changes_the_count(dtype, layout):
    """Other kernels run, as many products are made."""
    model = nn.Conv2d(IN, OUT, SIZE).to(dtype=dtype, memory_format=layout)
    x = torch.randn(BATCH, IN, SIDE, SIDE, dtype=dtype).to(memory_format=layout)
    forward = 2 * BATCH * OUT * 25 * IN * 9
    assert all_phases(model, x) == (forward, 2 * forward, 3 * forward)


def test_one_image_without_a_batch():
    """It costs what a batch of one does."""
    x = torch.randn(IN, SIDE, SIDE)
    assert flops(nn.Conv2d(IN, OUT, SIZE), x) == 2 * OUT * 25 * IN * 9
    assert flops(nn.ConvTranspose2d(IN, OUT, SIZE), x) == 2 * IN * 49 * OUT * 9


@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_complex_one_is_three_real_ones(layer):
    """That is how torch computes it, forward and backward."""
    model = layer(IN, OUT, SIZE, dtype=torch.cfloat)
    positions = 25 if layer is nn.Conv2d else 49
    forward = 3 * 2 * BATCH * positions * IN * OUT * 9
    x = torch.randn(BATCH, IN, SIDE, SIDE, dtype=torch.cfloat)
    assert all_phases(model, x) == (forward, 2 * forward, 3 * forward)


def test_time_batch_channels():
    """conv_tbc has its kernel's channels last."""
    inputs = [torch.randn(9, 2, 3), torch.randn(3, 3, 4), torch.randn(4)]
    forward = 2 * 7 * 2 * 4 * 9
    assert flops(torch.conv_tbc, *inputs) == forward
    inputs = [x.requires_grad_() for x in inputs]
    assert flops(torch.conv_tbc, *inputs, phase="training") == 3 * forward


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_deformable_convolution(groups, masked):
    """Sampling costs nothing; its backward gives all gradients, whichever of them are asked for."""
    ops = pytest.importorskip("torchvision.ops")
    model = ops.DeformConv2d(IN, OUT, SIZE, groups=groups)
    x, offset = torch.randn(BATCH, IN, SIDE, SIDE), torch.randn(BATCH, 18, 5, 5)
    mask = (torch.rand(BATCH, 9, 5, 5),) if masked else ()
    forward = 2 * BATCH * OUT * 25 * IN // groups * 9
    assert all_phases(model, x, offset, *mask) == (forward, 3 * forward, 3 * forward)


def test_unfolding_moves_numbers():
    """The product that follows costs what the convolution does."""
    x, kernel = torch.randn(BATCH, IN, SIDE, SIDE), torch.randn(OUT, IN * 9)
    assert flops(nn.Unfold(SIZE), x) == 0
    by_hand = flops(lambda image: kernel @ nn.functional.unfold(image, SIZE), x)
    assert by_hand == flops(nn.Conv2d(IN, OUT, SIZE), x) == 2 * BATCH * OUT * 25 * IN * 9


def test_sizes_that_differ():
    """No two sizes are alike here, so that none can stand in for another."""
    model = nn.Conv3d(6, 10, (1, 3, 5), stride=(1, 2, 3), groups=2)
    x = torch.randn(2, 6, 4, 9, 14)
    forward = 2 * 2 * 10 * math.prod((4, 4, 4)) * 3 * 15
    assert all_phases(model, x) == (forward, 2 * forward, 3 * forward)
