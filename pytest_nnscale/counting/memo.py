"""What is remembered of calls by their shapes, from one trace to the next in a process.

A key holds all that the answer depends on: the operator, the specs of its tensors with strides and
offsets, its numbers and flags, the default dtype; a table is for one target device. What depends on
values is never remembered, nor any module or model: only single operators are. All is forgotten
when formulas were registered or operators declared free meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pytest_nnscale.counting.declared import declared_names
from pytest_nnscale.counting.formulas.registry import registered
from pytest_nnscale.counting.shapes import Output
from pytest_nnscale.counting.specs import forget_specs

_MOST = 100_000  # calls remembered; a model of a hundred layers has some hundred different ones


@dataclass(frozen=True, slots=True, eq=False)
class Remembered:
    """What a call gives and costs: its first output, and all, in a tuple or list if `wrapped`.

    `flops` is None where a formula asks for more than shapes; `remedy` says how to have the call
    counted where it has no formula. `special` is a call that has more to it than
    its outputs and known FLOPs. `valueless` says that there are no values to keep of the outputs,
    or too many. `func` is kept so that its id stays its own.
    """

    func: Any
    name: str
    output: Output
    outputs: tuple[Output, ...]
    wrapped: type | None
    flops: int | None
    remedy: str
    kernels: int
    special: bool
    writes: bool
    valueless: bool
    devices: tuple[str, ...]


Table = dict[tuple[Any, ...], Remembered]
_tables: dict[torch.device, Table] = {}
_stamp: object = None


def table_for(device: torch.device) -> Table:
    """Return the table of a target device; an empty one where formulas have changed since."""
    global _stamp
    stamp = (registered(), declared_names())
    if stamp != _stamp or sum(map(len, _tables.values())) > _MOST:
        forget()
        _stamp = stamp
    return _tables.setdefault(device, {})


def forget() -> None:
    """Forget every call; traces that run keep the tables they have."""
    _tables.clear()
    forget_specs()


def rememberable(func: Any) -> bool:
    """Tell whether keys tell the calls of an operator apart.

    Lists of numbers do not say which of them are floating-point.
    """
    return "Scalar[]" not in str(func._schema)
