"""Which formula an operator has: the user's, else this package's, else torch's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch.utils import flop_counter

from pytest_nnscale.errors import BadOption, BadWorkload

Formula = Callable[..., int]
Shape = Sequence[int]
F = TypeVar("F", bound=Formula)

_of_users: dict[object, Formula] = {}
# By name: to ask torch for an operator takes longer than to register it, and there are hundreds.
_of_ours: dict[str, Formula] = {}
_of_any_number: set[str] = set()
_registrations = 0
# The wrapper through which formulas see shapes alone; torch wraps all but raw ones in it.
_SHAPES_ALONE = flop_counter.shape_wrapper(lambda: 0).__code__


class NoFormula(Exception):
    """What a call costs does not follow from its shapes."""


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
        global _registrations
        _registrations += 1
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
    own = next((_of_ours[name] for name in _names_of(func) if name in _of_ours), None)
    return own or flop_counter.flop_registry.get(packet)


@functools.cache
def _names_of(func: object) -> tuple[str, ...]:
    """Return the names that a formula of an operator may go by: of an overload, then of all."""
    packet = getattr(func, "_overloadpacket", func)
    name = str(packet).replace(".", "::", 1)
    overload = getattr(func, "_overloadname", "")
    return (f"{name}.{overload}", name) if overload else (name,)


def sees_shapes_alone(formula: Formula) -> bool:
    """Tell whether a formula is called with shapes, not with tensors."""
    return getattr(formula, "__code__", None) is _SHAPES_ALONE


def registered() -> tuple[int, int]:
    """Return what changes whenever anyone registers a formula, here or with torch."""
    return _registrations, len(flop_counter.flop_registry)


def is_of_user(func: object) -> bool:
    """Tell whether the formula of an operator is a user's, who knows best what it costs."""
    return func in _of_users or getattr(func, "_overloadpacket", func) in _of_users


def counts_any_number(func: object) -> bool:
    """Tell whether the formula of an operator counts complex operands as what they are."""
    return is_of_user(func) or not _of_any_number.isdisjoint(_names_of(func))


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


def ours(*operators: str, get_raw: bool = False, any_number: bool = False) -> Callable[[F], F]:
    """Register a formula of this package, as `flop_formula` does one of a user, by names.

    "aten::mm" stands for all overloads, "aten::linear.out" for one. One of an overload goes before the one of all its overloads. `any_number` says that it counts
    complex operands as they are; all others are of real ones, and times four for complex ones.
    """

    def register(formula: F) -> F:
        for operator in operators:
            if operator in _of_ours:
                raise RuntimeError(f"{operator} has a formula already")
            _of_ours[operator] = formula if get_raw else flop_counter.shape_wrapper(formula)
            if any_number:
                _of_any_number.add(operator)
        return formula

    return register


def named(namespace: str, names: str) -> Iterator[str]:
    """Yield the full names of operators of one library, which need not be loaded."""
    return (f"{namespace}::{name}" for name in names.split())
