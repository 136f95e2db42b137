"""Pooling of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pytest_nnscale.counting.shape_rules.convolutions import per_axis
from pytest_nnscale.counting.shape_rules.operands import FLOATS
from pytest_nnscale.counting.shape_rules.registry import Answer, rule
from pytest_nnscale.counting.shape_rules.strides import layout_of
from pytest_nnscale.counting.specs import Spec, spec


@rule("aten::max_pool2d_with_indices", device="cpu")
def _max_pool(
    image: Spec,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> Answer:
    pooled = _pooled(image, _windows(image, kernel, stride, padding, dilation, ceil_mode))
    if pooled is None:
        return None
    return [pooled, spec(pooled.size, pooled.stride, torch.int64, pooled.device)]


@rule("aten::avg_pool2d", device="cpu")
def _average_pool(
    image: Spec,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    _count_include_pad: bool = True,
    divisor: int | None = None,
) -> Answer:
    pooled = _pooled(image, _windows(image, kernel, stride, padding, (1,), ceil_mode))
    return None if pooled is None or divisor is not None else [pooled]


@rule("aten::_adaptive_avg_pool2d", device="cpu")
def _adaptive_average_pool(image: Spec, size: Sequence[int]) -> Answer:
    pooled = _pooled(image, size)
    return None if pooled is None else [pooled]


def _pooled(image: Spec, lengths: Sequence[int] | None) -> Spec | None:
    layout = layout_of(image)
    if not lengths or len(lengths) != 2 or min(lengths) <= 0:
        return None
    if layout is None or len(image.size) != 4 or not image.numel or image.dtype not in FLOATS:
        return None
    size = (*image.size[:2], *lengths)
    return spec(size, layout(size), image.dtype, image.device)


def _windows(
    image: Spec,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> Sequence[int] | None:
    """Return how many windows there are along each axis of an image."""
    given = (kernel, stride or kernel, padding, dilation)
    if len(image.size) != 4 or any(len(numbers) not in (1, 2) for numbers in given):
        return None
    counts = []
    for length, width, step, pad, gap in zip(
        image.size[2:], *(per_axis(numbers, 2) for numbers in given), strict=True
    ):
        if min(width, step, gap) <= 0 or not 0 <= 2 * pad <= width:
            return None
        room = length + 2 * pad - gap * (width - 1) - 1
        count = (room + (step - 1 if ceil_mode else 0)) // step + 1
        # The last window has to begin inside, or in the padding before.
        if (count - 1) * step >= length + pad:
            count -= 1
        counts.append(count)
    return counts
