"""Convolutions, of one to three axes, forth and transposed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_nnscale.counting.shape_rules.registry import WRONG, Answer, rule
from pytest_nnscale.counting.shape_rules.strides import channels_last, is_channels_last
from pytest_nnscale.counting.specs import Spec, contiguous, spec
from pytest_nnscale.counting.traced import NeedsValues


@rule("aten::convolution", device="cpu")
def _convolution(
    image: Spec,
    kernel: Spec,
    bias: Spec | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    **_: Any,
) -> Answer:
    axes = len(kernel.size) - 2
    batched = len(image.size) == axes + 2
    channels = image.size[1] if batched else 0
    if not batched or axes not in (1, 2, 3) or image.numel == 0 or image.dtype != kernel.dtype:
        return None
    given = (stride, padding, dilation, output_padding)
    made = kernel.size[1] * groups if transposed else kernel.size[0]
    if (
        channels != (kernel.size[0] if transposed else kernel.size[1] * groups)
        or kernel.size[0] % groups
        or not (bias is None or (bias.size == (made,) and bias.dtype == image.dtype))
        or not image.dtype.is_floating_point
        or any(len(numbers) not in (1, axes) or min(numbers) < 0 for numbers in given)
        or not all((*stride, *dilation))
    ):
        raise NeedsValues(WRONG)
    stride, padding, dilation, output_padding = (per_axis(numbers, axes) for numbers in given)
    if transposed and any(map(_too_much, output_padding, stride, dilation)):
        raise NeedsValues(WRONG)
    lengths = []
    for axis in range(axes):
        reach = dilation[axis] * (kernel.size[axis + 2] - 1)
        length = image.size[axis + 2]
        if transposed:
            length = (length - 1) * stride[axis] - 2 * padding[axis] + reach
            length += output_padding[axis] + 1
        else:
            length = (length + 2 * padding[axis] - reach - 1) // stride[axis] + 1
        if length <= 0:
            return None
        lengths.append(length)
    size = (image.size[0], made, *lengths)
    last = is_channels_last(image) or is_channels_last(kernel)
    return [
        spec(size, channels_last(size) if last else contiguous(size), image.dtype, image.device)
    ]


def _too_much(output_padding: int, stride: int, dilation: int) -> bool:
    return output_padding >= max(stride, dilation)


def per_axis(given: Sequence[int], axes: int) -> Sequence[int]:
    """Return a number for each axis, where one may be given for all of them."""
    return given if len(given) == axes else [given[0]] * axes
