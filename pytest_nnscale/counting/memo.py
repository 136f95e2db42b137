"""What is remembered of calls by their shapes, from one trace to the next in a process.

A key holds all that the answer depends on: the operator, the specs of its tensors with strides and
offsets, its numbers and flags, the default dtype, the grad mode; a table is for one target device,
with autograd or without. What depends on values is never remembered, nor any module or model: only
operators are, of those made of others the ones that `composites` names. All is forgotten when
formulas were registered or operators declared free meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pytest_nnscale.counting.coverage import Work, classify, is_kernel
from pytest_nnscale.counting.declared import declared_names
from pytest_nnscale.counting.dispatch import name_of
from pytest_nnscale.counting.flops import NoCount, flops_of, from_shapes_alone
from pytest_nnscale.counting.formulas.registry import registered
from pytest_nnscale.counting.ledger import Entry
from pytest_nnscale.counting.shapes import Given, New, Outcome, Output, View, argument_at
from pytest_nnscale.counting.specs import forget_specs
from pytest_nnscale.counting.values import SMALL
from pytest_nnscale.counting.writes import tensors_in, written_by

_MOST = 100_000  # calls remembered; a model of a hundred layers has some hundred different ones


@dataclass(slots=True, eq=False, repr=False)  # no more, since it is made when first imported
class Remembered:
    """What a call gives and costs: its first output, and all, in a tuple or list if `wrapped`.

    `flops` is None where a formula asks for more than shapes; `remedy` says how to have the call
    counted where it has no formula. `special` is a call that has more to it than
    its outputs and known FLOPs. `valueless` says that there are no values to keep of the outputs,
    or too many. `func` is kept so that its id stays its own. An operator that is made of others
    has them in `parts`; what these make and drop again are the bytes of `before` and `after` its
    own output comes to life.
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
    parts: tuple[Entry, ...] | None = None
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


Table = dict[tuple[Any, ...], Remembered]
_tables: dict[tuple[torch.device, bool], Table] = {}
_stamp: object = None


def table_for(device: torch.device, *, alone: bool) -> Table:
    """Return the table of a target device, `alone` without autograd; empty where formulas changed."""
    global _stamp
    stamp = (registered(), declared_names())
    if stamp != _stamp or sum(map(len, _tables.values())) > _MOST:
        forget()
        _stamp = stamp
    return _tables.setdefault((device, alone), {})


def forget() -> None:
    """Forget every call; traces that run keep the tables they have."""
    _tables.clear()
    forget_specs()


def rememberable(func: Any) -> bool:
    """Tell whether keys tell the calls of an operator apart.

    Lists of numbers do not say which of them are floating-point.
    """
    return "Scalar[]" not in str(func._schema)


def remembered(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outcome: Outcome
) -> Remembered:
    """Return what is to be remembered of a call with some outcome: also what it costs."""
    outputs, wrapped = outcome
    flops: int | None = 0
    remedy = ""
    if classify(func) is not Work.FREE:
        if from_shapes_alone(func):
            out = [_standing_for(output, args, kwargs) for output in outputs]
            try:
                flops = flops_of(func, args, kwargs, wrapped(out) if wrapped else out[0])
            except NoCount as unknown:
                remedy = str(unknown)
        else:
            flops = None
    specs = [output.spec for output in outputs if isinstance(output, New | View)]
    devices = {str(tensor.device) for tensor in tensors_in([args, kwargs])}
    devices |= {str(spec.device) for spec in specs}
    written = any(True for _ in written_by(func, args, kwargs))
    return Remembered(
        func,
        name_of(func),
        outputs[0] if outputs else Given(None),
        outputs,
        wrapped,
        flops,
        remedy,
        int(is_kernel(func)),
        bool(remedy) or flops is None or func is torch.ops.aten.ones_like.default,
        written,
        not all(0 < spec.numel <= SMALL for spec in specs),
        tuple(sorted(devices)),
    )


def _standing_for(output: Output, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return what a formula may take for an output: something of its shape."""
    if isinstance(output, New | View):
        spec = output.spec
        return torch.empty_strided(spec.size, spec.stride, dtype=spec.dtype, device="meta")
    return output.value if isinstance(output, Given) else argument_at(output.place, args, kwargs)
