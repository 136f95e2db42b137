"""Convolutions: two FLOP for each position and kernel element that meet.

Of a plain convolution each output number meets the kernel of its channel, of a transposed one each
input number does. Groups, strides and dilation are in the shapes; padding counts as numbers.
Unfolding and folding move data.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from pytest_nnscale.counting.formulas.registry import Shape, named, ours


def _products(positions: Shape, kernel: Shape) -> int:
    # The channels of the positions are the first axis of the kernel; a reordered one splits it.
    return 2 * prod(positions) * prod(kernel[1:])


@ours(
    "aten::_slow_conv2d_forward",
    "aten::cudnn_convolution",
    *named(
        "aten",
        "cudnn_convolution_relu cudnn_convolution_add_relu miopen_convolution "
        "miopen_convolution_relu miopen_convolution_add_relu miopen_depthwise_convolution "
        "_mps_convolution _nnpack_spatial_convolution slow_conv3d_forward slow_conv_dilated2d "
        "slow_conv_dilated3d _conv_depthwise2d conv_depthwise3d",
    ),
    *named("torchvision", "deform_conv2d"),
)
def _plain(_image: Shape, kernel: Shape, *_args: Any, out_shape: Shape, **_: Any) -> int:
    return _products(out_shape, kernel)


@ours(
    *named("aten", "mkldnn_convolution"),
    *named("mkldnn", "_convolution_pointwise.default"),
)
def _reordered(_image: Shape, kernel: Shape, *_args: Any, out_shape: Shape, **_: Any) -> int:
    # Groups may be an axis of their own in a reordered kernel.
    return 2 * prod(out_shape) * (prod(kernel) // out_shape[1])


@ours(*named("mkldnn", "_convolution_pointwise.binary _convolution_pointwise_.binary"))
def _reordered_and_sum(
    _image: Shape, _other: Shape, kernel: Shape, *_args: Any, out_shape: Shape, **_: Any
) -> int:
    return 2 * prod(out_shape) * (prod(kernel) // out_shape[1])


@ours(
    *named(
        "aten",
        "cudnn_convolution_transpose miopen_convolution_transpose _mps_convolution_transpose "
        "slow_conv_transpose2d slow_conv_transpose3d",
    )
)
def _transposed(image: Shape, kernel: Shape, *_args: Any, **_: Any) -> int:
    return _products(image, kernel)


@ours(*named("mkldnn", "_convolution_transpose_pointwise"))
def _transposed_reordered(image: Shape, kernel: Shape, *_args: Any, **_: Any) -> int:
    return 2 * prod(image) * (prod(kernel) // image[1])


@ours("aten::conv_tbc")
def _time_batch_channels(
    _steps: Shape, kernel: Shape, *_args: Any, out_shape: Shape, **_: Any
) -> int:
    return 2 * prod(out_shape) * prod(kernel[:2])


def _backward(
    gradient: Shape, image: Shape, kernel: Shape, transposed: bool, mask: Sequence[bool]
) -> int:
    # The gradients of input and weight each multiply the same pairs of numbers as the forward.
    forward = _products(image if transposed else gradient, kernel)
    return forward * (int(mask[0]) + int(mask[1]))


@ours("aten::convolution_backward")
def _convolution_backward(
    gradient: Shape,
    image: Shape,
    kernel: Shape,
    _bias: object,
    _stride: object,
    _padding: object,
    _dilation: object,
    transposed: bool,
    _output_padding: object,
    _groups: int,
    output_mask: Sequence[bool],
    **_: Any,
) -> int:
    return _backward(gradient, image, kernel, transposed, output_mask)


@ours("aten::convolution_backward_overrideable")
def _overrideable_backward(
    gradient: Shape,
    image: Shape,
    kernel: Shape,
    _stride: object,
    _padding: object,
    _dilation: object,
    transposed: bool,
    _output_padding: object,
    _groups: int,
    output_mask: Sequence[bool],
    **_: Any,
) -> int:
    return _backward(gradient, image, kernel, transposed, output_mask)


@ours(*named("aten", "_slow_conv2d_backward"))
def _slow_backward(gradient: Shape, image: Shape, kernel: Shape, *args: Any, **_: Any) -> int:
    mask = args[3] if len(args) > 3 else (True, True)
    return _backward(gradient, image, kernel, False, mask)


@ours(*named("aten", "mps_convolution_backward"))
def _mps_backward(image: Shape, gradient: Shape, kernel: Shape, *args: Any, **_: Any) -> int:
    return _backward(gradient, image, kernel, False, args[-1])


@ours(*named("aten", "mps_convolution_transpose_backward"))
def _mps_transposed_backward(
    image: Shape, gradient: Shape, kernel: Shape, *args: Any, **_: Any
) -> int:
    return _backward(gradient, image, kernel, True, args[-1])


@ours(*named("torchvision", "_deform_conv2d_backward"))
def _deformable_backward(
    gradient: Shape, image: Shape, kernel: Shape, *_args: Any, **_: Any
) -> int:
    # All gradients are always computed: one product for weights, one for whatever was sampled.
    return _backward(gradient, image, kernel, False, (True, True))
