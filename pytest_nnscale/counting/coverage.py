"""Every operator is counted, known to be free of contraction work, or UNKNOWN; never silently 0.

Free is what torch tags as a view, pointwise or a reduction, and the operators named in the tables of
`free`. UNKNOWN is everything else, above all every custom operator without a formula.
"""

from __future__ import annotations

import enum
import functools

import torch

from pytest_nnscale.counting.declared import is_declared_free
from pytest_nnscale.counting.formulas import formula_for
from pytest_nnscale.counting.free import FREE, FREE_ELSEWHERE, FREE_PRIMS, METADATA, NO_KERNEL


class Work(enum.Enum):
    """What is known of the FLOPs of an operator."""

    COUNTED = "counted"
    FREE = "free"
    UNKNOWN = "unknown"


# Operators that only talk: to the profiler, or to other processes.
_FREE_NAMESPACES = frozenset({"profiler", "c10d", "_c10d_functional", "_c10d_functional_autograd"})
_BUILT_IN = frozenset({"aten", "prims", "prim"})


def classify(func: object) -> Work:
    """Tell whether the FLOPs of an operator (OpOverload or HigherOrderOperator) are known."""
    if formula_for(func) is not None:
        return Work.COUNTED
    if not isinstance(func, torch._ops.OpOverload):
        return Work.UNKNOWN
    declared = is_declared_free(func._schema.name, func._overloadname)
    return Work.FREE if declared or _is_free(func) else Work.UNKNOWN


@functools.cache
def is_kernel(func: object) -> bool:
    """Tell whether an operator computes something: no view, no metadata, no bare allocation."""
    if not isinstance(func, torch._ops.OpOverload):
        return True
    if func.namespace == "prim" or func.is_view:
        return False
    return not (func.namespace == "aten" and _base(func) in NO_KERNEL | METADATA)


@functools.cache
def _is_free(func: torch._ops.OpOverload) -> bool:
    name = _base(func)
    if func.namespace in _FREE_NAMESPACES or f"{func.namespace}::{name}" in FREE_ELSEWHERE:
        return True
    if func.namespace not in _BUILT_IN:
        return False
    if func.is_view or torch.Tag.pointwise in func.tags or torch.Tag.reduction in func.tags:
        return True
    if func.namespace != "aten":
        return func.namespace == "prims" and name in FREE_PRIMS
    if name in FREE or name in NO_KERNEL or name in METADATA:
        return True
    if name.startswith("_foreach_"):
        single = name.removeprefix("_foreach_")
        return single == "powsum" or _is_free_name(single) or _is_free_name(single.rstrip("_"))
    # `x.eq_(y)` is what `x.eq(y)` is, `view_copy` a view that is then copied.
    return _is_free_name(name.removesuffix("_copy").rstrip("_"))


def _is_free_name(name: str) -> bool:
    packet = getattr(torch.ops.aten, name, None)
    if packet is None:
        return False
    overloads = [getattr(packet, overload) for overload in packet.overloads()]
    return name in FREE or any(o.is_view or torch.Tag.pointwise in o.tags for o in overloads)


def _base(func: torch._ops.OpOverload) -> str:
    return str(func._schema.name).partition("::")[2]
