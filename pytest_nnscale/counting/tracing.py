"""The dispatch mode of a trace: answers for each operator with shapes, and books what it would do.

What is known of a call by its shapes is remembered for every later one (see `memo`). A model's own
tensors enter as they are: nothing of theirs is read but their shapes, and nothing is written. Small
tensors whose values are known keep them, since models branch on such: index arithmetic, masks,
step counters are computed, contractions never are.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pytest_nnscale.counting.coverage import Work, classify, is_kernel
from pytest_nnscale.counting.dispatch import _OBSERVE, CountingMode, name_of, shapes_in
from pytest_nnscale.counting.flops import NoCount, flops_of, from_shapes_alone
from pytest_nnscale.counting.liveness import Lifeline, MadeBy
from pytest_nnscale.counting.memo import Remembered, rememberable, table_for
from pytest_nnscale.counting.modules import NOWHERE
from pytest_nnscale.counting.shapes import (
    Given,
    New,
    Output,
    Same,
    View,
    depends_on_values,
    on_meta,
    outcome_of,
    why_untraceable,
)
from pytest_nnscale.counting.specs import Spec, spec_of
from pytest_nnscale.counting.traced import NeedsValues, Traced, traced
from pytest_nnscale.counting.writes import tensors_in, written_by

_aten = torch.ops.aten
_autograd_node = torch._C._current_autograd_node
_default_dtype = torch.get_default_dtype
_SMALL = 1 << 14  # elements up to which known values are kept
_PARAMETER = nn.Parameter
_PLAIN = frozenset({Tensor, nn.Parameter, nn.Buffer})
_ATOMS = frozenset(
    {int, type(None), str, torch.dtype, torch.device, torch.layout, torch.memory_format}
)
# In a key 1, 1.0 and True would be equal.
_TYPED = frozenset({float, bool, complex})
_RESHAPED_IN_PLACE = frozenset(
    {
        _aten.t_,
        _aten.transpose_,
        _aten.squeeze_,
        _aten.unsqueeze_,
        _aten.swapaxes_,
        _aten.swapdims_,
        _aten.as_strided_,
        _aten.detach_,
    }
)
_ONES = _aten.ones_like.default
_LIFT = _aten.lift_fresh.default
_wrap = Tensor._make_wrapper_subclass
_strided = torch.strided


class TracingMode(CountingMode):
    """Books operators without running them; NeedsValues is raised where shapes are not enough.

    `inside` has what parameters and buffers of the modules seen are, by their ids. `gave_up` is the
    first reason why the trace is none, also where the model caught the error and went on.
    """

    def __init__(self, *args: Any, device: torch.device) -> None:
        super().__init__(*args)
        self.inside: dict[int, Spec] = {}
        self.gave_up = ""
        self._device = device
        self._table = table_for(device)
        self._holders: dict[tuple[int, bool], MadeBy] = {}
        self._optimizer = MadeBy(NOWHERE, "optimizer")
        self._stack = self._modules.stack
        self._log = self._ledger.log.append
        self._note = self._liveness.note
        # Storages that an operator would have written, which a trace leaves as they are.
        self._unknown: dict[int, Any] = {}

    def give_up(self, reason: str) -> None:
        """End the trace: raise NeedsValues, and remember why."""
        self.gave_up = self.gave_up or reason
        raise NeedsValues(reason)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        __tracebackhide__ = True
        key: list[Any] = [id(func), _default_dtype()]
        reals: list[Tensor] = []  # that belong to no module seen
        shapes_alone = plain = False  # a tensor without values, one that is not traced
        inside = self.inside
        for arg in args if not kwargs else (*args, *kwargs, *kwargs.values()):
            kind = type(arg)
            if kind is Traced:
                shapes_alone = True
                key.append(arg.spec)
            elif kind in _ATOMS:
                key.append(arg)
            elif kind in _PLAIN:
                plain = True
                spec = inside.get(id(arg))
                if spec is None:
                    if why_untraceable(arg):
                        return self._not_known(func, types, args, kwargs or {}, None, None)
                    spec = spec_of(arg)
                    reals.append(arg)
                elif (
                    arg.shape != spec.size
                    or arg.stride() != spec.stride
                    or (arg.dtype is not spec.dtype)
                ):
                    spec = inside[id(arg)] = spec_of(arg)
                if kind is _PARAMETER or spec.numel > _SMALL:
                    shapes_alone = True
                key.append(spec)
            elif kind is list and arg and type(arg[0]) is int:
                key.append(tuple(arg))  # of sizes; what takes other numbers is never remembered
            elif kind is list or kind is tuple:
                part = self._key_of_list(arg, reals)
                if part is None:
                    return self._not_known(func, types, args, kwargs or {}, None, None)
                shapes_alone = shapes_alone or part[0]
                key.append(part)
            elif kind in _TYPED:
                key.append((kind, arg))
            else:
                return self._not_known(func, types, args, kwargs or {}, None, None)
        place = tuple(key)
        known = self._table.get(place)
        if known is None or not (shapes_alone or known.valueless):
            return self._not_known(func, types, args, kwargs or {}, place, known)
        if (
            reals
            or known.special
            or (known.writes and (plain or not _has_lifeline(args)))
            or self._seeds
            or self._steps.running
            or _autograd_node()
        ):
            if "torch._dynamo" in sys.modules:
                self._on_operator()
            return self._book(known, func, args, kwargs, reals)
        # Nearly all: a forward, on the model's own tensors, whose cost follows from their shapes.
        stack = self._stack
        owner = stack[-1][0] if stack else NOWHERE
        self._log((known, owner))
        holder = self._holders.get((owner, False)) or self._holder(owner, backward=False)
        if known.wrapped is None:
            output = known.output
            if type(output) is not New:
                return self._make(output, args, kwargs, holder)
            spec = output[0]
            out = _wrap(
                Traced, spec.size, spec.stride, spec.offset, None, spec.dtype, _strided, spec.device
            )
            out.spec = spec
            out.lifeline = Lifeline(self._note, holder, spec.nbytes)
            return out
        return known.wrapped([self._make(each, args, kwargs, holder) for each in known.outputs])

    def _key_of_list(self, values: Sequence[Any], reals: list[Tensor]) -> tuple[Any, ...] | None:
        """Return the part of a key that a list is; first whether it has tensors without values.

        None where it has no key.
        """
        key: list[Any] = [False]
        for arg in values:
            kind = type(arg)
            if kind is Traced:
                key[0] = True
                key.append(arg.spec)
            elif kind in _PLAIN:
                if why_untraceable(arg):
                    return None
                spec = spec_of(arg)
                if kind is _PARAMETER or spec.numel > _SMALL:
                    key[0] = True
                key.append(spec)
                reals.append(arg)
            elif kind in _ATOMS:
                key.append(arg)
            elif kind in _TYPED:
                key.append((kind, arg))
            else:
                return None
        return tuple(key)

    def _not_known(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        place: tuple[Any, ...] | None,
        known: Remembered | None,
    ) -> Any:
        """Answer a call that was not met before, or has no traced tensor among its arguments."""
        __tracebackhide__ = True
        if func is _LIFT and type(args[0]) is Tensor:  # a literal, which most often is a number
            return super()._observe(func, args, kwargs)
        other = self._otherwise(func, types, args, kwargs)
        if other is not _OBSERVE:
            return other
        try:
            return self._answer(func, args, kwargs, place, known)
        except NeedsValues as error:
            self.gave_up = self.gave_up or str(error)
            raise

    def _answer(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        place: tuple[Any, ...] | None,
        known: Remembered | None,
    ) -> Any:
        __tracebackhide__ = True
        if not isinstance(func, torch._ops.OpOverload):
            raise NeedsValues(f"{name_of(func)} runs as a whole")
        if func.namespace == "profiler":
            return func(*args, **kwargs)
        tensors = [*tensors_in(args), *tensors_in(kwargs)]
        for tensor in tensors:
            why = why_untraceable(tensor)
            if type(tensor) not in _PLAIN and type(tensor) is not Traced:
                why = why or f"a {type(tensor).__name__}"
            if why:
                raise NeedsValues(f"{name_of(func)} takes {why}")
        if torch.Tag.inplace_view in func.tags and not self._is_own(args[0]):
            return self._reshape(func, args, kwargs)
        keeps_values = self._keeps_values(func, args, kwargs, tensors)
        if keeps_values and (_computes_nothing(func) or depends_on_values(func, args)):
            return super()._observe(func, args, kwargs)
        if known is None:
            outcome = outcome_of(func, args, kwargs, self._device)
            known = self._remembered(func, args, kwargs, outcome.outputs, outcome.wrapped)
            if place is not None and rememberable(func):
                self._table[place] = known
        if keeps_values and not known.valueless:
            return super()._observe(func, args, kwargs)
        reals = [
            tensor
            for tensor in tensors
            if type(tensor) is not Traced and id(tensor) not in self.inside
        ]
        return self._book(known, func, args, kwargs, reals)

    def _remembered(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        outputs: tuple[Output, ...],
        wrapped: type | None,
    ) -> Remembered:
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
            bool(remedy) or flops is None or func is _ONES,
            written,
            not all(0 < spec.numel <= _SMALL for spec in specs),
            tuple(sorted(devices)),
        )

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
        ledger = self._ledger
        ledger.operators += 1
        ledger.devices.update(dict.fromkeys(known.devices))
        flops = known.flops
        if flops is None:
            flops = self._flops_of_raw(func, args, kwargs or {}, out)
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
            source = _at(output.of, args, kwargs)
            if type(source) is Traced:
                return traced(output.spec, source.lifeline)
            return traced(output.spec, source)
        if type(output) is Same:
            return _at(output.place, args, kwargs)
        return output.value  # type: ignore[union-attr]

    def _flops_of_raw(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
    ) -> int:
        """Ask a formula that wants the tensors themselves: it sees them on meta."""
        args, kwargs, out = _all_on_meta(args), _all_on_meta(kwargs), _all_on_meta(out)
        try:
            return flops_of(func, args, kwargs, out)
        except NoCount as unknown:
            self.give_up(f"the FLOPs of {name_of(func)} do not follow from shapes ({unknown})")
            raise

    def _note_writes(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what is written, or would be: its values are not known from here on."""
        for tensor in written_by(func, args, kwargs):
            # Of a traced view, what it views is written.
            real = tensor.lifeline if type(tensor) is Traced else tensor
            if isinstance(real, Tensor):
                self._writes.note(real, self._liveness.is_inside)
                storage = real.untyped_storage()
                self._unknown[storage._cdata] = storage

    def _keeps_values(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: Sequence[Tensor],
    ) -> bool:
        """Tell whether a call is on small known values alone, and writes none that were there."""
        if classify(func) is not Work.FREE:
            return False
        if not depends_on_values(func, args) and any(type(t) is _PARAMETER for t in tensors):
            return False  # weights are asked for their values, if at all, as they are
        for tensor in tensors:
            if type(tensor) is Traced or tensor.is_meta or tensor.numel() > _SMALL:
                return False
            if tensor.untyped_storage()._cdata in self._unknown:
                return False
        return all(self._liveness.is_inside(tensor) for tensor in written_by(func, args, kwargs))

    def _is_own(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor) and self._liveness.is_inside(tensor)

    def _reshape(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Change how a traced tensor is seen, in place: no kernel reads its data for that."""
        tensor = args[0]
        if type(tensor) is not Traced or func._overloadpacket not in _RESHAPED_IN_PLACE:
            raise NeedsValues(f"{name_of(func)} changes a tensor's shape in place")
        with torch._C._DisableTorchDispatch():
            func(*args, **kwargs)
        tensor.spec = spec_of(tensor)
        self._ledger.operators += 1
        return tensor


class DriverlessTracingMode(TracingMode):
    """A trace of a GPU's path on a machine without one.

    torch looks for a driver when a tensor is made on a GPU, except under a mode of this key.
    """

    def __init__(self, *args: Any, device: torch.device) -> None:
        super().__init__(*args, device=device)
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE

    @classmethod
    def is_infra_mode(cls) -> bool:
        return True

    def _keeps_values(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: Sequence[Tensor],
    ) -> bool:
        there = torch.device(kwargs.get("device") or "cpu").type == self._device.type
        return not there and super()._keeps_values(func, args, kwargs, tensors)


def _has_lifeline(args: tuple[Any, ...]) -> bool:
    """Tell whether an operator that writes its first argument writes a tensor of the trace alone."""
    return bool(args) and type(getattr(args[0], "lifeline", None)) is Lifeline


def _at(place: tuple[Any, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> Any:
    first = place[0]
    found = args[first] if isinstance(first, int) else (kwargs or {})[first]
    return found if len(place) == 1 else found[place[1]]


def _standing_for(output: Output, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return what a formula may take for an output: something of its shape."""
    if isinstance(output, New | View):
        spec = output.spec
        return torch.empty_strided(spec.size, spec.stride, dtype=spec.dtype, device="meta")
    return output.value if isinstance(output, Given) else _at(output.place, args, kwargs)


def _all_on_meta(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return on_meta(tree) if type(tree) is Traced else tree
    if isinstance(tree, dict):
        return {name: _all_on_meta(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_all_on_meta(value) for value in tree)
    return tree


def _computes_nothing(func: Any) -> bool:
    return bool(func.is_view) or func in (_LIFT, _aten.lift.default)
