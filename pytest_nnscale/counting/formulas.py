"""Operator -> FLOPs, on top of torch's own flop_registry; 1 multiply-accumulate = 2 FLOP.

Counts: contractions (matrix products, convolutions, attention). Not: bias, elementwise work.
Causal or masked attention counts as dense attention, as in torch. Formulas are of real, dense
tensors; `flops.py` makes the most of them for complex, sparse and nested ones.
Reference: torch.utils.flop_counter. Departs from it in one place, convolution_backward, where
torch counts the weight gradient of a grouped convolution `groups` times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeVar

import torch
from torch.utils import flop_counter

from pytest_nnscale.errors import BadOption, BadWorkload

Formula = Callable[..., int]
Shape = Sequence[int]
F = TypeVar("F", bound=Formula)

_aten = torch.ops.aten
_of_users: dict[object, Formula] = {}
_of_ours: dict[object, Formula] = {}


def flop_formula(*operators: object, get_raw: bool = False) -> Callable[[F], F]:
    """Register a function of shapes as the FLOP count of operators.

    `operators` are operators of `torch.ops` (`torch.ops.ns.op`, or one overload of it) or what
    `torch.library.custom_op` returned. The function is called like the operator, with shapes in
    place of tensors and `out_shape=`; with `get_raw` with the tensors themselves and `out_val=`.
    It returns FLOP: two for each multiply-accumulate. It takes precedence over every formula that
    torch or this package has. BadOption is raised where another one was registered before.
    """
    if not operators:
        raise BadWorkload("flop_formula takes operators: @flop_formula(torch.ops.ns.op)")
    targets = [_target(operator) for operator in operators]

    def register(formula: F) -> F:
        for target in targets:
            known = _of_users.get(target)
            # A module imported twice may register the same function again.
            if known is not None and _origin(known) != _origin(formula):
                raise BadOption(f"{target} has a formula already: {_origin(known)}")
        for target in targets:
            _of_users[target] = formula if get_raw else flop_counter.shape_wrapper(formula)
        return formula

    return register


def formula_for(func: object) -> Formula | None:
    """Return what computes the FLOPs of an operator, or None where no formula is known.

    The formula is called like the operator, with `out_val=` its result.
    """
    packet = getattr(func, "_overloadpacket", func)
    for target in (func, packet):
        if target in _of_users:
            return _of_users[target]
    return _of_ours.get(packet) or flop_counter.flop_registry.get(packet)


def is_of_user(func: object) -> bool:
    """Tell whether the formula of an operator is a user's, who knows best what it costs."""
    return func in _of_users or getattr(func, "_overloadpacket", func) in _of_users


def _target(operator: object) -> object:
    # torch.library.custom_op returns a definition that holds its one overload.
    operator = getattr(operator, "_opoverload", operator)
    known = (torch._ops.OpOverload, torch._ops.OpOverloadPacket, torch._ops.HigherOrderOperator)
    if not isinstance(operator, known):
        raise BadWorkload(
            f"{operator!r} is no operator; flop_formula takes one of torch.ops, such as "
            "torch.ops.ns.op"
        )
    return operator


def _origin(formula: Formula) -> str:
    return f"{formula.__module__}.{formula.__qualname__}"


def _ours(*packets: object) -> Callable[[Formula], Formula]:
    def register(formula: Formula) -> Formula:
        for packet in packets:
            _of_ours[packet] = flop_counter.shape_wrapper(formula)
        return formula

    return register


@_ours(_aten.mv)
def _mv(matrix: Shape, _vector: Shape, **_: Any) -> int:
    return 2 * prod(matrix)


@_ours(_aten.addmv, _aten.addmv_)
def _addmv(_bias: Shape, matrix: Shape, _vector: Shape, **_: Any) -> int:
    return 2 * prod(matrix)


@_ours(_aten.dot, _aten.vdot)
def _dot(vector: Shape, _other: Shape, **_: Any) -> int:
    return 2 * prod(vector)


@_ours(_aten.addr, _aten.addr_)
def _addr(_bias: Shape, column: Shape, row: Shape, **_: Any) -> int:
    return 2 * prod(column) * prod(row)


@_ours(_aten._int_mm)
def _int_mm(left: Shape, right: Shape, **_: Any) -> int:
    (rows, inner), columns = left, right[1]
    return 2 * rows * inner * columns


@_ours(_aten.addmm_, _aten._addmm_activation)
def _addmm(_bias: Shape, left: Shape, right: Shape, **_: Any) -> int:
    return _int_mm(left, right)


@_ours(_aten.addbmm, _aten.addbmm_, _aten.baddbmm_)
def _addbmm(_bias: Shape, left: Shape, right: Shape, **_: Any) -> int:
    (batch, rows, inner), columns = left, right[2]
    return 2 * batch * rows * inner * columns


@_ours(_aten.affine_grid_generator)
def _affine_grid(_theta: Shape, *_args: Any, out_shape: Shape, **_: Any) -> int:
    # Each coordinate of the grid is a product with one row of theta, of length d + 1.
    return 2 * (out_shape[-1] + 1) * prod(out_shape)


@_ours(_aten.convolution_backward)
def _convolution_backward(
    gradient: Shape,
    image: Shape,
    kernel: Shape,
    _bias: object,
    _stride: object,
    _padding: object,
    _dilation: object,
    transposed: bool,
    _output_padding: object,
    _groups: int,
    output_mask: Sequence[bool],
    **_: Any,
) -> int:
    # The gradients of input and weight each multiply the same pairs of numbers as the forward.
    forward = flop_counter.conv_flop_count(
        list(image), list(kernel), list(gradient), transposed=transposed
    )
    return int(forward) * (int(output_mask[0]) + int(output_mask[1]))


@_ours(_aten._scaled_dot_product_flash_attention_for_cpu)
def _attention(query: Shape, key: Shape, value: Shape, *_args: Any, **_: Any) -> int:
    return int(flop_counter.sdpa_flop_count(query, key, value))


@_ours(_aten._scaled_dot_product_flash_attention_for_cpu_backward)
def _attention_backward(
    gradient: Shape, query: Shape, key: Shape, value: Shape, *_args: Any, **_: Any
) -> int:
    return int(flop_counter.sdpa_backward_flop_count(gradient, query, key, value))


@_ours(_aten._native_multi_head_attention)
def _multi_head(
    query: Shape, key: Shape, value: Shape, width: int, _heads: int, *_args: Any, **_: Any
) -> int:
    # Four projections of width x width, and attention in between, whatever the number of heads.
    batch, targets, sources = query[0], query[1], key[1]
    projections = 2 * batch * width * width * (targets + sources + value[1] + targets)
    return projections + 2 * 2 * batch * targets * sources * width
