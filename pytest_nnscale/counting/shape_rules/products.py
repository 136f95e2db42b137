"""Matrix products, and decompositions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pytest_nnscale.counting.formulas.registry import named
from pytest_nnscale.counting.shape_rules.operands import FLOATS, HALVES, NUMBERS, fits
from pytest_nnscale.counting.shape_rules.registry import WRONG, Answer, rule
from pytest_nnscale.counting.shape_rules.strides import like
from pytest_nnscale.counting.specs import Spec, contiguous, spec
from pytest_nnscale.counting.traced import NeedsValues


@rule("aten::mm", device="cpu")
def _mm(left: Spec, right: Spec) -> Answer:
    return _product(left, right, axes=2)


@rule("aten::bmm", device="cpu")
def _bmm(left: Spec, right: Spec) -> Answer:
    return _product(left, right, axes=3)


@rule("aten::addmm", device="cpu")
def _addmm(added: Spec, left: Spec, right: Spec, **scales: float) -> Answer:
    return _with_added(added, _product(left, right, axes=2), scales)


@rule("aten::baddbmm", device="cpu")
def _baddbmm(added: Spec, left: Spec, right: Spec, **scales: float) -> Answer:
    return _with_added(added, _product(left, right, axes=3), scales)


def _product(left: Spec, right: Spec, axes: int) -> list[Spec] | None:
    if not len(left.size) == len(right.size) == axes:
        return None
    if left.dtype != right.dtype:
        raise NeedsValues(WRONG)
    if left.dtype not in FLOATS:
        return None
    *batch, rows, inner = left.size
    *others, across, columns = right.size
    matches = (batch, inner) == (others, across)
    return [like(left, (*batch, rows, columns))] if matches else None


def _with_added(
    added: Spec, product: list[Spec] | None, scales: Mapping[str, float]
) -> list[Spec] | None:
    # What has no axes may be of another device.
    if product is None or not added.size or not {*map(type, scales.values())} <= NUMBERS:
        return None
    (whole,) = product
    if added.dtype != whole.dtype or not fits(added.size, whole.size):
        raise NeedsValues(WRONG)
    return product


@rule("aten::_linalg_svd", device="cpu")
def _singular_values(
    matrix: Spec, full_matrices: bool = False, compute_uv: bool = True, **_: Any
) -> Answer:
    *batch, rows, columns = matrix.size
    if matrix.dtype in HALVES:
        raise NeedsValues(f"singular values of {matrix.dtype} are computed by no CPU")
    if not compute_uv or not matrix.numel or not matrix.dtype.is_floating_point:
        return None
    least = min(rows, columns)
    left = (*batch, rows, rows if full_matrices else least)
    right = (*batch, columns if full_matrices else least, columns)
    return [_by_columns(matrix, left), like(matrix, (*batch, least)), _by_columns(matrix, right)]


def _by_columns(source: Spec, size: tuple[int, ...]) -> Spec:
    *batch, inner, outer = contiguous((*size[:-2], size[-1], size[-2]))
    return spec(size, (*batch, outer, inner), source.dtype, source.device)


@rule(*named("aten", "_grouped_mm"), device="cpu")
def _grouped_mm(
    left: Spec,
    right: Spec,
    ends: Spec | None = None,
    _bias: Spec | None = None,
    dtype: torch.dtype | None = None,
) -> Answer:
    # torch's own is of a GPU, which takes half precision only.
    if left.size[-1] != right.size[-2]:
        raise NeedsValues(WRONG)
    rows, columns = left.size[-2], right.size[-1]
    if len(left.size) == 3 and len(right.size) == 3:
        size: tuple[int, ...] = (left.size[0], rows, columns)
    elif ends is None:
        return None
    else:
        both_flat = len(left.size) == len(right.size) == 2
        size = (ends.size[0], rows, columns) if both_flat else (rows, columns)
    return [like(left, size, dtype)]
