"""The FLOPs of one call: its operator's formula, and what is special about its operands.

A complex multiply-accumulate is four real ones, 8 FLOP. A complex convolution dispatches the three
real ones that torch makes of it, and counts these. A product with a sparse operand counts its
stored values only, one of two sparse matrices each pair of stored values that meet, and one with a
nested operand its components one by one.
"""

from __future__ import annotations

import functools
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
    sees_shapes_alone,
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
    _aten._sparse_mm_reduce_impl: 0,
    _aten._sparse_sparse_matmul: 0,
    _aten.hspmm: 0,
    _aten.sspaddmm: 1,
}
# Operators with a formula that holds for each sequence of a nested batch.
_OF_SEQUENCES = frozenset(
    {_aten._native_multi_head_attention, _aten._transformer_encoder_layer_fwd}
)


class NoCount(Exception):
    """The FLOPs of a call are not known; its text is the remedy."""


def flops_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """Return the FLOPs of a call that gave `out`; NoCount where they are not known."""
    formula, complex_factor = formula_for(func), 1
    if not is_of_user(func):
        operands = [*tensors_in(args), *tensors_in(_read(func, kwargs))]
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


def from_shapes_alone(func: Any) -> bool:
    """Tell whether calls of an operator with dense tensors of the same shapes cost the same."""
    formula = formula_for(func)
    return formula is None or sees_shapes_alone(formula)


def _read(func: Any, kwargs: dict[str, Any]) -> list[Any]:
    """Return the keyword arguments that are no outputs: what is written to costs nothing."""
    return [value for name, value in kwargs.items() if name not in _outputs(func)]


@functools.cache
def _outputs(func: Any) -> frozenset[str]:
    arguments = getattr(getattr(func, "_schema", None), "arguments", ())
    return frozenset(argument.name for argument in arguments if argument.is_out)


def is_nested(tensor: Tensor) -> bool:
    """Tell whether a tensor is a strided nested one, which has no shape; jagged ones have parts."""
    return tensor.is_nested and tensor.layout is torch.strided


def _sparse(func: Any, args: tuple[Any, ...]) -> int:
    """Count two FLOP for each stored value and each column (or row) of the dense factor."""
    packet = func._overloadpacket
    if packet is _aten.sparse_sampled_addmm:  # a product for each place that is stored
        return 2 * _stored(func, args[0]) * int(args[1].shape[-1])
    if packet is _aten._sparse_mm_reduce_impl_backward:
        gradients = int(args[5][0]) + int(args[5][1])
        return 2 * _stored(func, args[0]) * int(args[1].shape[-1]) * gradients
    position = _FACTORS.get(packet, len(args))
    left, right = (*args[position : position + 2], None, None)[:2]
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        if left.layout in _SPARSE and right.layout is torch.strided:
            return 2 * _stored(func, left) * (right.shape[-1] if right.ndim > 1 else 1)
        if right.layout in _SPARSE and left.layout is torch.strided:
            return 2 * _stored(func, right) * left.shape[-2]
        if left.layout in _SPARSE and right.layout in _SPARSE:
            return 2 * _meetings(func, left, right)
    raise NoCount(_register(func))


def _meetings(func: Any, left: Tensor, right: Tensor) -> int:
    """Count the pairs of stored values that are multiplied: a column of one, that row of the other."""
    numbers = []
    for tensor, axis in ((left, 1), (right, 0)):
        blocks = tensor.layout in (torch.sparse_bsr, torch.sparse_bsc)
        if blocks or tensor.ndim != 2 or tensor.dense_dim():
            raise NoCount(_register(func))
        try:
            places = tensor.detach().to_sparse_coo().coalesce().indices()[axis]
            numbers.append(places.bincount(minlength=tensor.shape[axis]))
        except (RuntimeError, NotImplementedError) as error:  # on meta nobody knows where they are
            raise NoCount(_register(func)) from error
    return int((numbers[0] * numbers[1]).sum())


def _stored(func: Any, tensor: Tensor) -> int:
    if tensor.layout is not torch.sparse_coo:
        return tensor.values().numel()  # of blocks all, as all are multiplied
    if tensor.dense_dim():
        raise NoCount(_register(func))
    return tensor._nnz()


def _nested(func: Any, args: tuple[Any, ...]) -> int:
    """Add up the components, whose sizes are known without looking at any value."""
    packet = func._overloadpacket
    if packet in _OF_SEQUENCES:
        return _sequence_by_sequence(func, args)
    if packet is _aten.linear:
        return 2 * _numel(args[0]) * int(args[1].shape[0])
    if packet is _aten.linear_backward:  # of input and weight; the bias is a sum
        return 2 * _numel(args[0]) * int(args[2].shape[0]) * (int(args[3][0]) + int(args[3][1]))
    if packet in (_aten.matmul, _aten.bmm):
        return _nested_product(func, args[0], args[1])
    if packet is _aten.matmul_backward:
        return _nested_product(func, args[1], args[2]) * (int(args[3][0]) + int(args[3][1]))
    raise NoCount(_register(func))


def _sequence_by_sequence(func: Any, args: tuple[Any, ...]) -> int:
    """Add up what each sequence would cost as a batch of its own."""
    formula = formula_for(func)
    if formula is None:
        raise NoCount(_register(func))
    total = 0
    for size in _sizes(args[0]):
        alone = torch.empty(1, *size, device="meta")
        mine = [alone if isinstance(arg, Tensor) and is_nested(arg) else arg for arg in args]
        total += int(formula(*mine, out_val=alone))
    return total


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
