"""Normalisation over batches, layers and groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pytest_nnscale.counting.shape_rules.operands import HALVES
from pytest_nnscale.counting.shape_rules.registry import Answer, rule
from pytest_nnscale.counting.shape_rules.strides import channels_last, image_like, like
from pytest_nnscale.counting.specs import Spec, contiguous, spec
from pytest_nnscale.counting.traced import NeedsValues


@rule("aten::native_batch_norm", device="cpu")
def _batch_norm(
    image: Spec,
    weight: Spec | None,
    _bias: Spec | None,
    mean: Spec | None,
    _var: Spec | None,
    training: bool,
    *_: Any,
) -> Answer:
    if len(image.size) < 2 or image.numel == 0:
        return None
    other = weight or mean
    _precision(image, other)
    if not image.dtype.is_floating_point:
        return None
    statistics = other.dtype if other is not None and other.dtype != image.dtype else image.dtype
    saved = like(image, (image.size[1],) if training else (0,), statistics)
    return [_normalized(image), saved, saved]


@rule("aten::native_batch_norm_backward", device="cpu")
def _batch_norm_backward(_gradient: Spec, image: Spec, weight: Spec | None, *args: Any) -> Answer:
    parameter = like(weight or image, (image.size[1],))
    outputs = (_normalized(image), parameter, parameter)
    return [each if asked else None for each, asked in zip(outputs, args[-1], strict=True)]


def _normalized(image: Spec) -> Spec:
    """Return the spec of an image that lies the same, kept where it is exact."""
    exact = [contiguous(image.size)]
    if len(image.size) > 3:
        exact.append(channels_last(image.size))
    stride = image.stride if image.stride in exact else image_like(image).stride
    return spec(image.size, stride, image.dtype, image.device)


@rule("aten::native_layer_norm", device="cpu")
def _layer_norm(steps: Spec, normalized: Sequence[int], weight: Spec | None, *_: Any) -> Answer:
    if not steps.numel or steps.size[len(steps.size) - len(normalized) :] != tuple(normalized):
        return None
    kept = len(steps.size) - len(normalized)
    size = (*steps.size[:kept], *[1] * len(normalized))
    statistics = like(steps, size, _precision(steps, weight))
    return [like(steps, steps.size), statistics, statistics]


def _precision(steps: Spec, weight: Spec | None) -> torch.dtype:
    """Return in which precision a CPU keeps mean and deviation: that of a wider weight.

    Other mixtures are errors there, and none on meta: NeedsValues, so that the model runs into its own.
    """
    if weight is None or weight.dtype == steps.dtype:
        return steps.dtype
    if steps.dtype in HALVES and weight.dtype == torch.float32:
        return torch.float32
    raise NeedsValues(f"a normalisation of {steps.dtype} has weights of {weight.dtype}")


@rule("aten::native_layer_norm_backward", device="cpu")
def _layer_norm_backward(
    _gradient: Spec, steps: Spec, normalized: Sequence[int], *args: Any
) -> Answer:
    weight, mask = args[2], args[4]
    parameter = like(weight or steps, tuple(normalized))
    outputs = (like(steps, steps.size), parameter, parameter)
    return [each if asked else None for each, asked in zip(outputs, mask, strict=True)]


@rule("aten::native_group_norm", device="cpu")
def _group_norm(
    image: Spec, weight: Spec | None, _bias: Spec | None, batch: int, *args: Any
) -> Answer:
    groups = args[2]
    statistics = like(image, (batch, groups), _precision(image, weight))
    return [image_like(image), statistics, statistics] if image.numel else None


@rule("aten::native_group_norm_backward", device="cpu")
def _group_norm_backward(
    _gradient: Spec, image: Spec, _mean: Spec, _rstd: Spec, weight: Spec | None, *args: Any
) -> Answer:
    parameter = like(weight or image, (args[1],))
    outputs = (image_like(image), parameter, parameter)
    return [each if asked else None for each, asked in zip(outputs, args[4], strict=True)]
