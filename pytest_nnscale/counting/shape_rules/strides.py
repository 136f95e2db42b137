"""How tensors lie in memory, and what is made to lie like them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pytest_nnscale.counting.specs import Spec, contiguous, spec

Layout = Callable[[tuple[int, ...]], tuple[int, ...]]  # gives the strides of a size


def like(source: Spec, size: tuple[int, ...], dtype: torch.dtype | None = None) -> Spec:
    """Return the spec of a contiguous tensor of some size beside another one."""
    return spec(size, contiguous(size), dtype or source.dtype, source.device)


def channels_last(size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a tensor whose channels, its second axis, lie innermost."""
    strides = contiguous((size[0], *size[2:], size[1]))
    return (strides[0], strides[-1], *strides[1:-1])


def is_channels_last(tensor: Spec) -> bool:
    """Tell whether torch takes the strides of images or volumes for channels last.

    Source: is_channels_last_strides_2d and _3d in c10/core/MemoryFormat.h, ambiguous cases included.
    """
    size, stride = tensor.size, tensor.stride
    if len(size) not in (4, 5) or stride[1] == 0:
        return False
    least = 0
    for axis in (1, *range(len(size) - 1, 1, -1), 0):
        if size[axis] == 0 or stride[axis] < least:
            return False
        if axis == 0 and least == stride[1]:
            return False
        least = stride[axis] * max(size[axis], 1)
    return True


def layout_of(tensor: Spec) -> Layout | None:
    """Return what gives a tensor its strides: `contiguous` or `channels_last`.

    None where it is neither to the stride; and of images of one channel or one pixel, or none at
    all, that lie channels last: they are contiguous as well, and operators differ over them.
    """
    size, stride = tensor.size, tensor.stride
    if stride == contiguous(size):
        return contiguous
    if len(size) not in (4, 5) or stride != channels_last(size):
        return None
    pixels = tensor.numel // (size[0] * size[1]) if tensor.numel else 0
    return channels_last if size[1] > 1 and pixels > 1 else None


def image_like(image: Spec) -> Spec:
    """Return the spec of an image of the same layout, as torch reads it."""
    stride = channels_last(image.size) if is_channels_last(image) else contiguous(image.size)
    return spec(image.size, stride, image.dtype, image.device)


def standing_for(known: Spec) -> torch.Tensor:
    """Return a meta tensor that lies like another one."""
    return torch.empty_strided(known.size, known.stride, dtype=known.dtype, device="meta")
