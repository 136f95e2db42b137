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
# torch refuses some calls on a device that it takes on meta: running them shows its own error.
_WRONG = "torch refuses such a call, or has an answer of its own"
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
    bias: Spec | None,
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
        raise NeedsValues(_WRONG)
    stride, padding, dilation, output_padding = (_each(numbers, axes) for numbers in given)
    if transposed and any(map(_too_much, output_padding, stride, dilation)):
        raise NeedsValues(_WRONG)
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
    kinds = (image.dtype, torch.float32) if image.dtype in _HALVES else (image.dtype,)
    if not image.dtype.is_floating_point or (other is not None and other.dtype not in kinds):
        return None
    statistics = other.dtype if other is not None and other.dtype != image.dtype else image.dtype
    saved = _like(image, (image.size[1],) if training else (0,), statistics)
    return [_normalized(image), saved, saved]


_HALVES = frozenset({torch.float16, torch.bfloat16})


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
def _encoder_layer(steps: Spec, width: int, *_: Any, **__: Any) -> Sequence[Spec] | None:
    if steps.size[-1] != width:
        raise NeedsValues(_WRONG)
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
    defaults: tuple[Any, ...] = (False, 0, False, None, False, -1)
    _scale, mode, _sparse, per_sample, include_last, padding = args + defaults[len(args) :]
    if per_sample is not None and (
        per_sample.dtype != weight.dtype or per_sample.size != indices.size
    ):
        raise NeedsValues(_WRONG)
    bags = offsets.size[0] - int(include_last)
    whole = torch.promote_types(indices.dtype, offsets.dtype)
    rows, counts = _like(weight, (bags, weight.size[1])), _like(offsets, (bags,), whole)
    roomy = spec((bags,), (1,), whole, weight.device, room=offsets.size[0])
    # A sum keeps no trace of which row went where, unless it is taken row by row.
    fast = weight.dtype in _FAST_SUMS and weight.stride[1] == 1 and padding < 0
    fast = fast and (per_sample is None or per_sample.stride[0] == 1)
    traces = 0 if mode == 0 and fast else indices.size[0]
    room = traces and traces + 1
    origins = spec((traces,), (1,), whole, weight.device, room=room)
    return [rows, origins, roomy, _like(indices, rows.size, whole) if mode == 2 else counts]


_FAST_SUMS = frozenset({torch.float32, torch.float16, torch.bfloat16})


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


@_rule(_aten.rrelu_with_noise.default, device="cpu")
def _noisy_relu(steps: Spec, *_: Any, **__: Any) -> Sequence[Spec | None]:
    return [_like(steps, steps.size)]


@_rule(
    _aten.mse_loss.default,
    _aten.smooth_l1_loss.default,
    _aten.soft_margin_loss.default,
    _aten.binary_cross_entropy.default,
    device="cpu",
)
def _reduced_loss(output: Spec, target: Spec, *args: Any) -> Sequence[Spec | None] | None:
    # One number, in the storage that was made for the loss of each element.
    reduction = next((arg for arg in reversed(args) if type(arg) is int), 1)
    if reduction == 0 or output.dtype != target.dtype:
        return None
    room = torch.broadcast_shapes(output.size, target.size).numel()
    return [spec((), (), output.dtype, output.device, room=room)]


@_rule(_aten.col2im.default, device="cpu")
def _columns_to_image(
    columns: Spec, size: Sequence[int], kernel: Sequence[int], *_: Any
) -> Sequence[Spec | None]:
    # Made as large as the columns first.
    channels = columns.size[-2] // (kernel[0] * kernel[-1])
    image = (*columns.size[:-2], channels, *size)
    return [spec(image, contiguous(image), columns.dtype, columns.device, room=columns.numel)]


@_rule(_aten._linalg_svd.default, device="cpu")
def _singular_values(
    matrix: Spec, full_matrices: bool = False, compute_uv: bool = True, **_: Any
) -> Sequence[Spec | None] | None:
    *batch, rows, columns = matrix.size
    if not compute_uv or not matrix.numel or not matrix.dtype.is_floating_point:
        return None
    least = min(rows, columns)
    left = (*batch, rows, rows if full_matrices else least)
    right = (*batch, columns if full_matrices else least, columns)
    return [_by_columns(matrix, left), _like(matrix, (*batch, least)), _by_columns(matrix, right)]


def _by_columns(source: Spec, size: tuple[int, ...]) -> Spec:
    *batch, inner, outer = contiguous((*size[:-2], size[-1], size[-2]))
    return spec(size, (*batch, outer, inner), source.dtype, source.device)


@_rule(*operators_named("aten", "_grouped_mm.default"), device="cpu")
def _grouped_mm(
    left: Spec,
    right: Spec,
    ends: Spec | None = None,
    _bias: Spec | None = None,
    dtype: torch.dtype | None = None,
) -> Sequence[Spec | None] | None:
    # torch's own is of a GPU, which takes half precision only.
    if left.size[-1] != right.size[-2]:
        raise NeedsValues(_WRONG)
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
    if not is_channels_last(image) or len(padding) != 4:
        return None
    left, right, top, bottom = padding
    if max(left, right) >= image.size[3] or max(top, bottom) >= image.size[2]:
        return None  # too much to reflect
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
