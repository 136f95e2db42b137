"""Shapes of what a few operators return, by rules of our own.

torch's meta kernels of these are written in Python and slow, are missing, or answer for another
device than a CPU. A rule takes specs in the place of tensors and returns the specs of the outputs,
or None where it does not hold; then torch is asked. Each agrees with what a CPU returns, to the
strides: tests/counting/test_shapes.py compares them with real calls.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from pytest_nnscale.counting.formulas.registry import operators_named
from pytest_nnscale.counting.specs import Spec, contiguous, spec
from pytest_nnscale.counting.traced import NeedsValues

_aten = torch.ops.aten
# An output may be None, too: the attention weights that nobody asked for.
Rule = Callable[..., Sequence[Spec | None] | None]
_rules: dict[tuple[object, str], Rule] = {}


def _rule(*operators: Any, device: str = "") -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for operator in operators:
            _rules[operator, device] = rule
        return rule

    return register


@functools.cache
def rule_for(func: object, device: str) -> Rule | None:
    """Return the rule of an operator on a kind of device, or for all of them."""
    return _rules.get((func, device)) or _rules.get((func, ""))


def _like(source: Spec, size: tuple[int, ...], dtype: torch.dtype | None = None) -> Spec:
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


@_rule(_aten.convolution.default, device="cpu")
def _convolution(
    image: Spec,
    kernel: Spec,
    _bias: Spec | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    **_: Any,
) -> Sequence[Spec | None] | None:
    axes = len(kernel.size) - 2
    batched = len(image.size) == axes + 2
    channels = image.size[1] if batched else 0
    if not batched or axes not in (1, 2, 3) or image.numel == 0 or image.dtype != kernel.dtype:
        return None
    if channels != (kernel.size[0] if transposed else kernel.size[1] * groups):
        return None  # torch says what is wrong
    stride, padding, dilation = (_each(given, axes) for given in (stride, padding, dilation))
    output_padding = _each(output_padding, axes)
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
    size = (image.size[0], kernel.size[1] * groups if transposed else kernel.size[0], *lengths)
    last = is_channels_last(image) or is_channels_last(kernel)
    return [
        spec(size, channels_last(size) if last else contiguous(size), image.dtype, image.device)
    ]


def _each(given: Sequence[int], axes: int) -> Sequence[int]:
    return given if len(given) == axes else [given[0]] * axes


@_rule(_aten.native_batch_norm.default, device="cpu")
def _batch_norm(
    image: Spec,
    weight: Spec | None,
    _bias: Spec | None,
    mean: Spec | None,
    _var: Spec | None,
    training: bool,
    *_: Any,
) -> Sequence[Spec | None] | None:
    if len(image.size) < 2 or image.numel == 0:
        return None
    other = weight or mean
    statistics = other.dtype if other is not None and other.dtype != image.dtype else image.dtype
    saved = _like(image, (image.size[1],) if training else (0,), statistics)
    return [_normalized(image), saved, saved]


def _normalized(image: Spec) -> Spec:
    """Return the spec of an image of the same layout, as torch reads it, kept where it is exact."""
    exact = [contiguous(image.size)]
    if len(image.size) > 3:
        exact.append(channels_last(image.size))
    stride = image.stride if image.stride in exact else _image_like(image).stride
    return spec(image.size, stride, image.dtype, image.device)


@_rule(_aten._native_multi_head_attention.default)
def _multi_head_attention(
    query: Spec,
    key: Spec,
    _value: Spec,
    _width: int,
    heads: int,
    _qkv_weight: Spec,
    _qkv_bias: Spec,
    _out_weight: Spec,
    _out_bias: Spec,
    _mask: Spec | None = None,
    need_weights: bool = True,
    average_weights: bool = True,
    *_: Any,
) -> Sequence[Spec | None] | None:
    batch, targets, sources = query.size[0], query.size[1], key.size[1]
    weights = None
    if need_weights:
        size = (batch, targets, sources) if average_weights else (batch, heads, targets, sources)
        weights = _like(query, size)
    return [_like(query, query.size), weights]


@_rule(_aten._transformer_encoder_layer_fwd.default)
def _encoder_layer(steps: Spec, *_: Any, **__: Any) -> Sequence[Spec]:
    return [_like(steps, steps.size)]


@_rule(_aten.native_layer_norm.default, device="cpu")
def _layer_norm(
    steps: Spec, normalized: Sequence[int], weight: Spec | None, *_: Any
) -> Sequence[Spec | None] | None:
    if not steps.numel or steps.size[len(steps.size) - len(normalized) :] != tuple(normalized):
        return None
    kept = len(steps.size) - len(normalized)
    size = (*steps.size[:kept], *[1] * len(normalized))
    statistics = _like(steps, size, _statistics(steps, weight))
    return [_like(steps, steps.size), statistics, statistics]


def _statistics(steps: Spec, weight: Spec | None) -> torch.dtype:
    """Return in which precision a CPU keeps mean and deviation: that of a wider weight."""
    return steps.dtype if weight is None else torch.promote_types(steps.dtype, weight.dtype)


@_rule(_aten.native_layer_norm_backward.default, device="cpu")
def _layer_norm_backward(
    _gradient: Spec, steps: Spec, normalized: Sequence[int], *args: Any
) -> Sequence[Spec | None] | None:
    weight, mask = args[2], args[4]
    parameter = _like(weight or steps, tuple(normalized))
    outputs = (_like(steps, steps.size), parameter, parameter)
    return [each if asked else None for each, asked in zip(outputs, mask, strict=True)]


@_rule(_aten.native_group_norm.default, device="cpu")
def _group_norm(
    image: Spec, weight: Spec | None, _bias: Spec | None, batch: int, *args: Any
) -> Sequence[Spec | None] | None:
    groups = args[2]
    statistics = _like(image, (batch, groups), _statistics(image, weight))
    return [_image_like(image), statistics, statistics] if image.numel else None


@_rule(_aten.native_group_norm_backward.default, device="cpu")
def _group_norm_backward(
    _gradient: Spec, image: Spec, _mean: Spec, _rstd: Spec, weight: Spec | None, *args: Any
) -> Sequence[Spec | None] | None:
    parameter = _like(weight or image, (args[1],))
    outputs = (_image_like(image), parameter, parameter)
    return [each if asked else None for each, asked in zip(outputs, args[4], strict=True)]


def _image_like(image: Spec) -> Spec:
    stride = channels_last(image.size) if is_channels_last(image) else contiguous(image.size)
    return spec(image.size, stride, image.dtype, image.device)


@_rule(_aten._embedding_bag.default, _aten._embedding_bag_forward_only.default, device="cpu")
def _embedding_bag(
    weight: Spec, indices: Spec, offsets: Spec, *args: Any
) -> Sequence[Spec | None] | None:
    defaults = (False, 0, False, None, False)
    _scale, mode, _sparse, per_sample, include_last = (*args, *defaults[len(args) :])[:5]
    summed, maximal = mode == 0, mode == 2
    if per_sample is not None:
        return None
    bags = offsets.size[0] - int(include_last)
    rows, counts = _like(weight, (bags, weight.size[1])), _like(offsets, (bags,))
    # A sum keeps no trace of which row went where.
    origins = _like(indices, (0,) if summed else indices.size)
    return [rows, origins, counts, _like(indices, rows.size) if maximal else counts]


@_rule(_aten.native_batch_norm_backward.default, device="cpu")
def _batch_norm_backward(
    _gradient: Spec, image: Spec, weight: Spec | None, *args: Any
) -> Sequence[Spec | None] | None:
    parameter = _like(weight or image, (image.size[1],))
    outputs = (_normalized(image), parameter, parameter)
    return [each if asked else None for each, asked in zip(outputs, args[-1], strict=True)]


@_rule(_aten.mkldnn_rnn_layer.default, device="cpu")
def _recurrent_layer(steps: Spec, *args: Any) -> Sequence[Spec | None] | None:
    _weights, states, training = args[:4], args[4:6], args[-1]
    if training:
        raise NeedsValues("only oneDNN knows how much aten::mkldnn_rnn_layer keeps for training")
    hidden = states[0].size[-1]
    after = [_like(state, state.size) for state in states]
    return [_like(steps, (*steps.size[:2], hidden)), *after, None]


@_rule(*operators_named("aten", "_grouped_mm.default"), device="cpu")
def _grouped_mm(
    left: Spec,
    right: Spec,
    ends: Spec | None = None,
    _bias: Spec | None = None,
    dtype: torch.dtype | None = None,
) -> Sequence[Spec | None] | None:
    # torch's own is of a GPU, which takes half precision only.
    rows, columns = left.size[-2], right.size[-1]
    if len(left.size) == 3 and len(right.size) == 3:
        size: tuple[int, ...] = (left.size[0], rows, columns)
    elif ends is None:
        return None
    else:
        both_flat = len(left.size) == len(right.size) == 2
        size = (ends.size[0], rows, columns) if both_flat else (rows, columns)
    return [_like(left, size, dtype)]


@_rule(
    _aten.elu_backward.default,
    _aten.hardsigmoid_backward.default,
    _aten.hardswish_backward.default,
    _aten.hardtanh_backward.default,
    _aten.logit_backward.default,
    _aten.softplus_backward.default,
    _aten.native_dropout_backward.default,
    _aten.floor_divide.default,
    _aten.copysign.Tensor,
    device="cpu",
)
def _number_by_number(*args: Any) -> Sequence[Spec | None] | None:
    """Give what TensorIterator makes of two operands; torch's answer has the strides of the last."""
    operands = [arg for arg in args if isinstance(arg, Spec)]
    if len(operands) != 2:
        return None
    found = torch.add(*map(_standing_for, operands))
    return [spec(tuple(found.shape), found.stride(), found.dtype, operands[0].device)]


@_rule(_aten.binary_cross_entropy_backward.default, device="cpu")
def _cross_entropy_backward(_gradient: Spec, guess: Spec, *_: Any) -> Sequence[Spec | None] | None:
    return [
        spec(guess.size, torch.empty_like(_standing_for(guess)).stride(), guess.dtype, guess.device)
    ]


def _standing_for(known: Spec) -> torch.Tensor:
    return torch.empty_strided(known.size, known.stride, dtype=known.dtype, device="meta")


@_rule(
    _aten.mse_loss_backward.default,
    _aten.smooth_l1_loss_backward.default,
    _aten.huber_loss_backward.default,
    device="cpu",
)
def _loss_backward(_gradient: Spec, guess: Spec, *_: Any) -> Sequence[Spec | None] | None:
    return [_like(guess, guess.size)]


@_rule(
    _aten._log_softmax_backward_data.default,
    _aten.glu_backward.default,
    device="cpu",
)
def _contiguous_backward(_gradient: Spec, data: Spec, *args: Any) -> Sequence[Spec | None] | None:
    asked = args[-1]  # of a softmax in another precision than its input
    return [_like(data, data.size, asked if isinstance(asked, torch.dtype) else None)]


@_rule(_aten.log_sigmoid_forward.default, device="cpu")
def _log_sigmoid(numbers: Spec) -> Sequence[Spec | None] | None:
    return [_like(numbers, numbers.size)] * 2


@_rule(
    _aten.reflection_pad2d.default,
    _aten.replication_pad2d.default,
    device="cpu",
)
def _padded(image: Spec, padding: Sequence[int]) -> Sequence[Spec | None] | None:
    if not is_channels_last(image):
        return None
    left, right, top, bottom = padding
    size = (*image.size[:2], image.size[2] + top + bottom, image.size[3] + left + right)
    return [spec(size, channels_last(size), image.dtype, image.device)]


@_rule(_aten.roll.default, device="cpu")
def _rolled(
    image: Spec, shifts: Sequence[int], axes: Sequence[int] = ()
) -> Sequence[Spec | None] | None:
    moved = axes and all(
        s % image.size[a] for s, a in zip(shifts, axes, strict=True) if image.numel
    )
    return [_image_like(image) if moved else _like(image, image.size)]


@_rule(_aten.native_channel_shuffle.default, _aten.channel_shuffle.default, device="cpu")
def _shuffled(image: Spec, _groups: int) -> Sequence[Spec | None] | None:
    return [_image_like(image)]


@_rule(
    _aten.reflection_pad2d_backward.default,
    _aten.replication_pad2d_backward.default,
    device="cpu",
)
def _padded_backward(
    _gradient: Spec, image: Spec, _padding: Sequence[int]
) -> Sequence[Spec | None] | None:
    return [_image_like(image)]
