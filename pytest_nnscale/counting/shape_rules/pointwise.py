"""What goes number by number, anew and in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pytest_nnscale.counting.formulas.registry import named
from pytest_nnscale.counting.shape_rules.operands import FLOATS, INTEGERS, NUMBERS, fits, overlaps
from pytest_nnscale.counting.shape_rules.registry import WRONG, Answer, rule
from pytest_nnscale.counting.shape_rules.strides import layout_of, like, standing_for
from pytest_nnscale.counting.specs import Spec, contiguous, spec
from pytest_nnscale.counting.traced import NeedsValues


@rule(
    *named(
        "aten", "relu hardtanh silu sigmoid tanh hardswish hardsigmoid leaky_relu elu mish softplus"
    ),
    *named("aten", "neg exp sqrt rsqrt abs"),
    device="cpu",
)
def _each(numbers: Spec, *options: object) -> Answer:
    return [_fresh(numbers)] if _is_plain(numbers, options) else None


@rule(
    *named(
        "aten",
        "relu_ hardtanh_ silu_ sigmoid_ tanh_ hardswish_ hardsigmoid_ leaky_relu_ elu_ mish_",
    ),
    device="cpu",
)
def _each_in_place(numbers: Spec, *options: object) -> Answer:
    if overlaps(numbers):
        raise NeedsValues(WRONG)
    return [0] if _is_plain(numbers, options) else None


@rule("aten::gelu", device="cpu")
def _gelu(numbers: Spec, *, approximate: str = "none") -> Answer:
    if numbers.dtype in INTEGERS:
        raise NeedsValues(WRONG)
    known = approximate in ("none", "tanh")
    return [_fresh(numbers)] if known and _is_plain(numbers) else None


@rule("aten::clamp", device="cpu")
def _clamp(numbers: Spec, min: object = None, max: object = None) -> Answer:  # noqa: A002
    limits = [limit for limit in (min, max) if limit is not None]
    return [_fresh(numbers)] if limits and _is_plain(numbers, limits) else None


@rule(*named("aten", "add.Tensor sub.Tensor mul.Tensor div.Tensor"), device="cpu")
def _of_two(one: Spec, other: Spec | float, *, alpha: float = 1) -> Answer:
    if _settles(one, other, alpha):
        return [_fresh(one)]
    return [_fresh(other)] if isinstance(other, Spec) and _settles(other, one, alpha) else None


@rule(*named("aten", "add_.Tensor sub_.Tensor mul_.Tensor div_.Tensor"), device="cpu")
def _of_two_in_place(one: Spec, other: Spec | float, *, alpha: float = 1) -> Answer:
    if overlaps(one):
        raise NeedsValues(WRONG)
    return [0] if _is_plain(one, (alpha,)) and _joins(other, one) else None


def _settles(whole: Spec, other: Spec | float, alpha: float) -> bool:
    """Tell whether what comes of two operands lies as the first of them does."""
    if not _is_plain(whole, (alpha,)) or not _joins(other, whole):
        return False
    if isinstance(other, Spec):
        if (other.size, other.stride) == (whole.size, whole.stride):
            return True
        if layout_of(whole) is not contiguous or layout_of(other) is not contiguous:
            return False
    return whole.numel > 0  # else torch gives strides of zero along some axes


def _joins(other: Spec | float, whole: Spec) -> bool:
    """Tell whether an operand leaves size and dtype of another one as they are.

    A tensor without axes is left out: it may be of another device, or of another precision.
    """
    if not isinstance(other, Spec):
        return bool(whole.size) and type(other) in NUMBERS
    return bool(other.size) and other.dtype == whole.dtype and fits(other.size, whole.size)


def _is_plain(numbers: Spec, options: Sequence[object] = ()) -> bool:
    """Tell whether a tensor is of a known precision and layout, and all options are numbers."""
    known = numbers.dtype in FLOATS and layout_of(numbers) is not None
    return known and {*map(type, options)} <= NUMBERS


def _fresh(source: Spec) -> Spec:
    return spec(source.size, source.stride, source.dtype, source.device)


@rule(
    "aten::elu_backward",
    "aten::hardsigmoid_backward",
    "aten::hardswish_backward",
    "aten::hardtanh_backward",
    "aten::logit_backward",
    "aten::softplus_backward",
    "aten::native_dropout_backward",
    "aten::floor_divide",
    "aten::copysign.Tensor",
    device="cpu",
)
def _number_by_number(*args: Any) -> Answer:
    """Give what TensorIterator makes of two operands; torch's answer has the strides of the last."""
    operands = [arg for arg in args if isinstance(arg, Spec)]
    if len(operands) != 2:
        return None
    found = torch.add(*map(standing_for, operands))
    return [spec(tuple(found.shape), found.stride(), found.dtype, operands[0].device)]


@rule("aten::rrelu_with_noise", device="cpu")
def _noisy_relu(steps: Spec, *_: Any, **__: Any) -> Answer:
    return [like(steps, steps.size)]


@rule(
    "aten::_log_softmax_backward_data",
    "aten::glu_backward",
    device="cpu",
)
def _contiguous_backward(_gradient: Spec, data: Spec, *args: Any) -> Answer:
    asked = args[-1]  # of a softmax in another precision than its input
    return [like(data, data.size, asked if isinstance(asked, torch.dtype) else None)]


@rule("aten::log_sigmoid_forward", device="cpu")
def _log_sigmoid(numbers: Spec) -> Answer:
    return [like(numbers, numbers.size)] * 2
