"""Sums and means over axes, and softmax along one."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pytest_nnscale.counting.shape_rules.operands import FLOATS, INTEGERS
from pytest_nnscale.counting.shape_rules.registry import WRONG, Answer, rule
from pytest_nnscale.counting.shape_rules.strides import layout_of, like
from pytest_nnscale.counting.specs import Spec, contiguous
from pytest_nnscale.counting.traced import NeedsValues


@rule("aten::mean.dim", "aten::sum.dim_IntList", device="cpu")
def _reduced(
    numbers: Spec,
    dim: Sequence[int] | None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Answer:
    count = len(numbers.size)
    if numbers.dtype not in FLOATS or layout_of(numbers) is not contiguous or dtype is not None:
        return None
    if not dim or not all(-count <= axis < count for axis in dim):
        return None
    axes = {axis % count for axis in dim}
    if len(axes) != len(dim):
        return None  # the same twice
    size = (1 if axis in axes else length for axis, length in enumerate(numbers.size))
    kept = (length for axis, length in enumerate(numbers.size) if axis not in axes)
    return [like(numbers, tuple(size if keepdim else kept))]


@rule("aten::_softmax", "aten::_log_softmax", device="cpu")
def _softmax(numbers: Spec, dim: int, half_to_float: bool) -> Answer:
    axes = max(len(numbers.size), 1)
    if not -axes <= dim < axes or numbers.dtype in INTEGERS:
        raise NeedsValues(WRONG)
    if numbers.dtype not in FLOATS or half_to_float:
        return None
    return [like(numbers, numbers.size)]
