"""Products of matrices and vectors: two FLOP for each pair of numbers that is multiplied."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from pytest_nnscale.counting.formulas.registry import Shape, named, ours

# Above this many rows on either side, torch computes Euclidean distances by a matrix product.
_FEW_ROWS = 25


@ours("aten::mv")
def _mv(matrix: Shape, _vector: Shape, **_: Any) -> int:
    return 2 * prod(matrix)


@ours("aten::addmv", "aten::addmv_")
def _addmv(_bias: Shape, matrix: Shape, _vector: Shape, **_: Any) -> int:
    return 2 * prod(matrix)


@ours("aten::dot", "aten::vdot")
def _dot(vector: Shape, _other: Shape, **_: Any) -> int:
    return 2 * prod(vector)


@ours("aten::addr", "aten::addr_")
def _addr(_bias: Shape, column: Shape, row: Shape, **_: Any) -> int:
    return 2 * prod(column) * prod(row)


@ours("aten::_int_mm")
def _int_mm(left: Shape, right: Shape, **_: Any) -> int:
    (rows, inner), columns = left, right[1]
    return 2 * rows * inner * columns


@ours("aten::addmm_", "aten::_addmm_activation")
def _addmm(_bias: Shape, left: Shape, right: Shape, **_: Any) -> int:
    return _int_mm(left, right)


@ours("aten::addbmm", "aten::addbmm_", "aten::baddbmm_")
def _addbmm(_bias: Shape, left: Shape, right: Shape, **_: Any) -> int:
    (batch, rows, inner), columns = left, right[2]
    return 2 * batch * rows * inner * columns


@ours("aten::linear.out", *named("aten", "mkldnn_linear"))
@ours(*named("mkl", "_mkl_linear"), *named("mkldnn", "_linear_pointwise"))
def _linear(rows: Shape, *_args: Any, out_shape: Shape, **_: Any) -> int:
    return 2 * prod(rows) * out_shape[-1]


@ours(*named("aten", "mkldnn_linear_backward_input"))
def _linear_backward_input(
    _size: object, gradient: Shape, _weight: Shape, *_args: Any, out_shape: Shape, **_: Any
) -> int:
    return 2 * prod(gradient) * out_shape[-1]


@ours(*named("aten", "mkldnn_linear_backward_weights"))
def _linear_backward_weights(gradient: Shape, rows: Shape, *_args: Any, **_: Any) -> int:
    return 2 * prod(gradient) * rows[-1]


@ours(*named("aten", "mkldnn_linear_backward linear_backward"))
def _linear_backward(
    rows: Shape, gradient: Shape, _weight: Shape, mask: Sequence[bool], **_: Any
) -> int:
    return 2 * prod(gradient) * rows[-1] * (int(mask[0]) + int(mask[1]))


@ours(*named("aten", "_foreach_mm"))
def _foreach_mm(lefts: Sequence[Shape], rights: Sequence[Shape], **_: Any) -> int:
    return sum(_int_mm(left, right) for left, right in zip(lefts, rights, strict=True))


@ours(
    *named("aten", "_grouped_mm _scaled_grouped_mm _scaled_grouped_mm_v2 _scaled_mm _scaled_mm_v2"),
    get_raw=True,
)
def _grouped_mm(left: Tensor, right: Tensor, *_args: Any, **_: Any) -> int:
    """Count the products of groups (experts): each row meets the matrix of its own one alone.

    The groups divide the rows, the columns or the inner dimension of whichever operand has two
    axes, all of it; where their ends lie makes no difference. Numbers of four bits lie two by two.
    """
    packed = left.dtype is getattr(torch, "float4_e2m1fn_x2", None)
    inner = left.shape[-1] * (2 if packed else 1)
    groups = left.shape[0] if left.ndim == right.ndim == 3 else 1
    return 2 * groups * left.shape[-2] * inner * right.shape[-1]


@ours(*named("aten", "_compute_linear_combination"))
def _linear_combination(terms: Shape, coefficients: Shape, **_: Any) -> int:
    return 2 * coefficients[0] * prod(terms)


@ours("aten::_trilinear")
def _trilinear(
    first: Shape,
    second: Shape,
    third: Shape,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sums: Sequence[int],
    unrolled: int = 1,
    **_: Any,
) -> int:
    """Count the two products it is made of: the first two operands, and what they give by the third.

    Summed first is what the third does not have; the unrolled axis is looped over around both.
    """
    axes = range(len(first) + len(expand1))
    sizes = dict.fromkeys(axes, 1)
    present = []
    for shape, expanded in ((first, expand1), (second, expand2), (third, expand3)):
        mine = [axis for axis in axes if axis not in expanded]
        sizes.update({axis: size for axis, size in zip(mine, shape, strict=True) if size != 1})
        present.append({*mine})
    pair = present[0] | present[1] | {unrolled}
    left = pair - ({*sums} & {*expand3} - {unrolled})
    both = left | present[2]
    return 2 * prod(sizes[axis] for axis in pair) + 2 * prod(sizes[axis] for axis in both)


@ours("aten::_euclidean_dist")
def _euclidean(left: Shape, right: Shape, **_: Any) -> int:
    """Count the product that gives |x|^2 - 2xy + |y|^2: two more columns on either side."""
    return 2 * prod(left[:-1]) * right[-2] * (left[-1] + 2)


@ours("aten::_cdist_forward")
def _distances(
    left: Shape, right: Shape, norm: float, mode: int | None, *, out_shape: Shape, **_: Any
) -> int:
    """Count the matrix product of Euclidean distances where torch makes one.

    It does for p = 2 with more than 25 rows on a side, or where asked to (mode 1), unless asked
    not to (mode 2). Differences, powers and their sums are elementwise work and reductions.
    """
    many = left[-2] > _FEW_ROWS or right[-2] > _FEW_ROWS
    if norm != 2 or mode == 2 or not (many or mode == 1):
        return 0
    return 2 * prod(out_shape) * (left[-1] + 2)


@ours("aten::_cdist_backward", "aten::_pdist_forward", "aten::_pdist_backward")
def _pair_by_pair(*_args: Any, **_: Any) -> int:
    # Differences, powers and their sums, as in cdist without a matrix product.
    return 0


@ours("aten::affine_grid_generator", *named("aten", "cudnn_affine_grid_generator"))
def _affine_grid(_theta: Shape, *_args: Any, out_shape: Shape, **_: Any) -> int:
    # Each coordinate of the grid is a product with one row of theta, of length d + 1.
    return 2 * (out_shape[-1] + 1) * prod(out_shape)


@ours(*named("aten", "cudnn_affine_grid_generator_backward"))
def _affine_grid_backward(gradient: Shape, *_args: Any, **_: Any) -> int:
    return 2 * (gradient[-1] + 1) * prod(gradient)
