"""What a trace does with a call of which it is known what it gives and costs: books it, makes that.

Outputs have shapes and no values. Who made them holds their bytes while they live; what a call would
write is noted, and its values are not known from there on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from pytest_nnscale.counting.dispatch import CountingMode, shapes_in
from pytest_nnscale.counting.flops import NoCount, flops_of
from pytest_nnscale.counting.liveness import Lifeline, MadeBy
from pytest_nnscale.counting.memo import Remembered
from pytest_nnscale.counting.modules import NOWHERE
from pytest_nnscale.counting.shapes import New, Output, Same, View, all_on_meta, argument_at
from pytest_nnscale.counting.traced import NeedsValues, Traced, traced
from pytest_nnscale.counting.values import KnownValues
from pytest_nnscale.counting.writes import written_by

_autograd_node = torch._C._current_autograd_node
_ONES = torch.ops.aten.ones_like.default


class BookingMode(CountingMode):
    """Books calls that do not run.

    `gave_up` is the first reason why the trace is none, also where the model caught the error and
    went on.
    """

    def __init__(self, *args: Any, device: torch.device) -> None:
        super().__init__(*args)
        self.gave_up = ""
        self._holders: dict[tuple[int, bool], MadeBy] = {}
        self._optimizer = MadeBy(NOWHERE, "optimizer")
        self._log = self._ledger.log.append
        self._note = self._liveness.note
        self._values = KnownValues(self._liveness.is_inside, device)
        self._others = 0  # calls so far that are more than what is logged of them

    def give_up(self, reason: str) -> NoReturn:
        """End the trace: raise NeedsValues, and remember why."""
        self.gave_up = self.gave_up or reason
        raise NeedsValues(reason)

    def _book(
        self,
        known: Remembered,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        reals: Sequence[Tensor],
    ) -> Any:
        """Book a call and make its outputs."""
        __tracebackhide__ = True
        node = _autograd_node()
        if node or reals or known.special or known.writes or self._seeds or self._steps.running:
            self._others += 1
        if node is None:
            stack = self._modules.stack
            owner, backward = stack[-1][0] if stack else NOWHERE, False
            if self._seeds or func is _ONES:
                self._find_backward(func, kwargs or {}, backward=False)
        else:
            owner, backward = self._modules.owner(node), not self._modules.in_call
            if backward or self._seeds or func is _ONES:
                self._find_backward(func, kwargs or {}, backward=backward)
        for tensor in reals:
            self._writes.leaves((tensor,), self._liveness.is_inside)
            self._parameters.read(func, args, kwargs or {}, (tensor,))
            self._liveness.existed(tensor, NOWHERE)
        if known.writes:
            self._note_writes(func, args, kwargs or {})
        holder = self._holders.get((owner, backward))
        if holder is None or self._steps.running:
            holder = self._holder(owner, backward=backward)
        out: Any
        if known.wrapped is None:
            out = self._make(known.output, args, kwargs, holder)
        else:
            out = known.wrapped([self._make(each, args, kwargs, holder) for each in known.outputs])
        if not backward and not known.special:
            self._log((known, owner))
            return out
        ledger = self._ledger
        ledger.operators += 1
        ledger.devices.update(dict.fromkeys(known.devices))
        flops = known.flops
        if flops is None:
            try:
                flops = flops_of(func, *all_on_meta((args, kwargs or {}, out)))
            except NoCount as unknown:
                self.give_up(f"the FLOPs of {known.name} do not follow from shapes ({unknown})")
        if known.remedy:
            shapes = shapes_in(args, kwargs or {})
            ledger.uncounted(
                known.name, owner, backward=backward, shapes=shapes, remedy=known.remedy
            )
        if flops or known.kernels:
            ledger.work(
                owner, backward=backward, flops=flops, kernels=known.kernels, operator=known.name
            )
        return out

    def _holder(self, owner: int, *, backward: bool) -> MadeBy:
        kind = self._kind(backward=backward)
        if kind == "optimizer":
            return self._optimizer
        holder = self._holders[owner, backward] = MadeBy(owner, kind)
        return holder

    def _make(
        self,
        output: Output,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None,
        holder: MadeBy,
    ) -> Any:
        if type(output) is New:
            spec = output.spec
            life = Lifeline(self._note, holder, spec.nbytes) if spec.nbytes else None
            return traced(spec, life)
        if type(output) is View:
            source = argument_at(output.of, args, kwargs)
            if type(source) is Traced:
                return traced(output.spec, source.lifeline)
            return traced(output.spec, source)
        if type(output) is Same:
            return argument_at(output.place, args, kwargs)
        return output.value  # type: ignore[union-attr]

    def _note_writes(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what is written, or would be: its values are not known from here on."""
        for tensor in written_by(func, args, kwargs):
            # Of a traced view, what it views is written.
            real = tensor.lifeline if type(tensor) is Traced else tensor
            if isinstance(real, Tensor):
                self._writes.note(real, self._liveness.is_inside)
                self._values.lose(real)
