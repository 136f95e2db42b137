"""Padding, rolling, shuffling and folding of images."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_nnscale.counting.shape_rules.registry import Answer, rule
from pytest_nnscale.counting.shape_rules.strides import (
    channels_last,
    image_like,
    is_channels_last,
    like,
)
from pytest_nnscale.counting.specs import Spec, contiguous, spec


@rule("aten::col2im", device="cpu")
def _columns_to_image(
    columns: Spec, size: Sequence[int], kernel: Sequence[int], *_: object
) -> Answer:
    # Made as large as the columns first.
    channels = columns.size[-2] // (kernel[0] * kernel[-1])
    image = (*columns.size[:-2], channels, *size)
    return [spec(image, contiguous(image), columns.dtype, columns.device, room=columns.numel)]


@rule(
    "aten::reflection_pad2d",
    "aten::replication_pad2d",
    device="cpu",
)
def _padded(image: Spec, padding: Sequence[int]) -> Answer:
    if not is_channels_last(image) or len(padding) != 4:
        return None
    left, right, top, bottom = padding
    if max(left, right) >= image.size[3] or max(top, bottom) >= image.size[2]:
        return None  # too much to reflect
    size = (*image.size[:2], image.size[2] + top + bottom, image.size[3] + left + right)
    return [spec(size, channels_last(size), image.dtype, image.device)]


@rule(
    "aten::reflection_pad2d_backward",
    "aten::replication_pad2d_backward",
    device="cpu",
)
def _padded_backward(_gradient: Spec, image: Spec, _padding: Sequence[int]) -> Answer:
    return [image_like(image)]


@rule("aten::roll", device="cpu")
def _rolled(image: Spec, shifts: Sequence[int], axes: Sequence[int] = ()) -> Answer:
    moved = axes and all(
        s % image.size[a] for s, a in zip(shifts, axes, strict=True) if image.numel
    )
    return [image_like(image) if moved else like(image, image.size)]


@rule("aten::native_channel_shuffle", "aten::channel_shuffle", device="cpu")
def _shuffled(image: Spec, _groups: int) -> Answer:
    return [image_like(image)]
