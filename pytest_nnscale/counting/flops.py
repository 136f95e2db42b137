"""The FLOPs of one call: its operator's formula, and what is special about its operands.

A complex multiply-accumulate is four real ones, 8 FLOP. A complex convolution dispatches the three
real ones that torch makes of it, and counts these. A product with a sparse operand counts its
stored values only, one with a nested operand its components one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from pytest_nnscale.counting.formulas import (
    NoFormula,
    counts_any_number,
    formula_for,
    is_of_user,
)
from pytest_nnscale.counting.writes import tensors_in

_aten = torch.ops.aten
_SPARSE = frozenset(
    {torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc}
)
# Operator -> position of the left factor; the right one is next to it.
_FACTORS = {
    _aten.mm: 0,
    _aten.mv: 0,
    _aten.bmm: 0,
    _aten.matmul: 0,
    _aten.addmm: 1,
    _aten.addmm_: 1,
    _aten.addmv: 1,
    _aten.addmv_: 1,
    _aten._sparse_addmm: 1,
}


class NoCount(Exception):
    """The FLOPs of a call are not known; its text is the remedy."""


def flops_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """Return the FLOPs of a call that gave `out`; NoCount where they are not known."""
    formula, complex_factor = formula_for(func), 1
    if not is_of_user(func):
        operands = [*tensors_in(args), *tensors_in(kwargs)]
        if any(is_nested(tensor) for tensor in operands):
            return _nested(func, args)
        if any(tensor.layout in _SPARSE for tensor in operands):
            return _sparse(func, args)
        if any(tensor.is_complex() for tensor in operands) and not counts_any_number(func):
            complex_factor = 4
    if formula is None:
        raise NoCount(_register(func))
    try:
        return complex_factor * int(formula(*args, **kwargs, out_val=out))
    except NoFormula as error:
        raise NoCount(f"{error}; {_register(func)}") from error
    except Exception as error:  # a formula of anyone may raise anything
        remedy = f"its formula raised {type(error).__name__}: {error}; mend the formula"
        raise NoCount(remedy) from error


def is_nested(tensor: Tensor) -> bool:
    """Tell whether a tensor is a strided nested one, which has no shape; jagged ones have parts."""
    return tensor.is_nested and tensor.layout is torch.strided


def _sparse(func: Any, args: tuple[Any, ...]) -> int:
    """Count two FLOP for each stored value and each column (or row) of the dense factor."""
    position = _FACTORS.get(func._overloadpacket, len(args))
    left, right = (*args[position : position + 2], None, None)[:2]
    others = [tensor for tensor in tensors_in(args) if tensor is not left and tensor is not right]
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        dense = all(tensor.layout is torch.strided for tensor in others)
        if dense and left.layout in _SPARSE and right.layout is torch.strided:
            return 2 * _stored(func, left) * (right.shape[-1] if right.ndim > 1 else 1)
        if dense and right.layout in _SPARSE and left.layout is torch.strided:
            return 2 * _stored(func, right) * left.shape[-2]
    raise NoCount(_register(func))


def _stored(func: Any, tensor: Tensor) -> int:
    if tensor.layout is not torch.sparse_coo:
        return tensor.values().numel()  # of blocks all, as all are multiplied
    if tensor.dense_dim():
        raise NoCount(_register(func))
    return tensor._nnz()


def _nested(func: Any, args: tuple[Any, ...]) -> int:
    """Add up the components, whose sizes are known without looking at any value."""
    packet = func._overloadpacket
    if packet is _aten.linear:
        return 2 * _numel(args[0]) * int(args[1].shape[0])
    if packet is _aten.linear_backward:  # of input and weight; the bias is a sum
        return 2 * _numel(args[0]) * int(args[2].shape[0]) * (int(args[3][0]) + int(args[3][1]))
    if packet in (_aten.matmul, _aten.bmm):
        return _nested_product(func, args[0], args[1])
    if packet is _aten.matmul_backward:
        return _nested_product(func, args[1], args[2]) * (int(args[3][0]) + int(args[3][1]))
    raise NoCount(_register(func))


def _nested_product(func: Any, left: Tensor, right: Tensor) -> int:
    if not is_nested(left):
        raise NoCount(_register(func))
    lefts = _sizes(left)
    # A dense matrix meets every component; a dense tensor of more dimensions has one for each.
    rights = _sizes(right) if is_nested(right) else [list(right.shape)[-2:]] * len(lefts)
    if not is_nested(right) and right.ndim not in (2, len(lefts[0]) + 1 if lefts else 2):
        raise NoCount(_register(func))
    return sum(2 * prod(a) * b[-1] for a, b in zip(lefts, rights, strict=True))


def _numel(tensor: Tensor) -> int:
    return sum(prod(size) for size in _sizes(tensor)) if is_nested(tensor) else tensor.numel()


def _sizes(tensor: Tensor) -> Sequence[Sequence[int]]:
    sizes: list[list[int]] = tensor._nested_tensor_size().tolist()
    return sizes


def _register(func: Any) -> str:
    packet = getattr(func, "_overloadpacket", None)
    if packet is None:
        return f"register a formula: @pytest_nnscale.flop_formula(torch.ops.higher_order.{func})"
    return (
        f"register a formula: @pytest_nnscale.flop_formula(torch.ops.{packet}); "
        f"or, if it does no contraction work: nnscale_free_operators = {func._schema.name}"
    )
