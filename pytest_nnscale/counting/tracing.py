"""The dispatch mode of a trace: answers for each operator with shapes, and books what it would do.

What is known of a call by its shapes is remembered for every later one (see `memo`). A model's own
tensors enter as they are: nothing of theirs is read but their shapes, and nothing is written. Small
tensors whose values are known keep them, since models branch on such: index arithmetic, masks,
step counters are computed, contractions never are.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from pytest_nnscale.counting.booking import BookingMode
from pytest_nnscale.counting.casting import autocast_depth
from pytest_nnscale.counting.composites import WHOLE, composed
from pytest_nnscale.counting.dispatch import OBSERVE, is_wrapper, name_of
from pytest_nnscale.counting.liveness import Lifeline
from pytest_nnscale.counting.memo import Remembered, rememberable, remembered, table_for
from pytest_nnscale.counting.modules import NOWHERE
from pytest_nnscale.counting.shapes import (
    New,
    depends_on_values,
    outcome_of,
    why_untraceable,
    with_gradients,
)
from pytest_nnscale.counting.specs import Spec, spec_of
from pytest_nnscale.counting.traced import NeedsValues, Traced, reshape_in_place
from pytest_nnscale.counting.values import SMALL
from pytest_nnscale.counting.writes import tensors_in

_aten = torch.ops.aten
_autograd_node = torch._C._current_autograd_node
_default_dtype = torch.get_default_dtype
_gradients_on = torch.is_grad_enabled
_inferring = torch.is_inference_mode_enabled
_deeper, _less_deep = torch.autocast_increment_nesting, torch.autocast_decrement_nesting
_PARAMETER = nn.Parameter
PLAIN = frozenset({Tensor, nn.Parameter, nn.Buffer})
_ATOMS = frozenset(
    {int, type(None), str, torch.dtype, torch.device, torch.layout, torch.memory_format}
)
# In a key 1, 1.0 and True would be equal.
_TYPED = frozenset({float, bool, complex})
_LIFT = _aten.lift_fresh.default
_DETACH_IN_PLACE = _aten.detach_.default
_BUILT_IN = frozenset({"aten", "prims", "prim", "profiler", "higher_order"})
_wrap = Tensor._make_wrapper_subclass
_strided = torch.strided
_modes_further_out = torch._C._len_torch_dispatch_stack


class TracingMode(BookingMode):
    """Books operators without running them; NeedsValues is raised where shapes are not enough.

    `inside` has what parameters and buffers of the modules seen are, by their ids. A mode that is
    `alone` has no autograd above it, and gives up where the model `wants_gradients`.
    """

    def __init__(self, *args: Any, device: torch.device, alone: bool = False) -> None:
        super().__init__(*args, device=device)
        self._alone = alone
        self.inside: dict[int, Spec] = {}
        self.wants_gradients = False
        self._device = device
        self._table = table_for(device, alone=alone)
        self._stack = self._modules.stack
        self._imported = len(sys.modules)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        __tracebackhide__ = True
        _deeper()  # the one question to autocast that is answered in here
        key: list[Any] = [id(func), _default_dtype(), _gradients_on(), _inferring(), _less_deep()]
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
            elif kind in PLAIN:
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
                    or arg.dtype is not spec.dtype
                    or arg.requires_grad is not spec.needs_grad
                ):
                    spec = inside[id(arg)] = spec_of(arg)
                if kind is _PARAMETER or spec.numel > SMALL:
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
                key.append(kind)
                key.append(arg)
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
            if known.parts is not None:
                return self._take_apart(func, args, kwargs or {}, place)
            if "torch._dynamo" in sys.modules:
                self._on_operator()
            return self._book(known, func, args, kwargs, reals)
        # Nearly all: a forward, on the model's own tensors, whose cost follows from their shapes.
        stack = self._stack
        owner = stack[-1][0] if stack else NOWHERE
        self._log((known, owner))
        holder = self._holders.get((owner, False)) or self._holder(owner, backward=False)
        for change in known.before:
            self._note((holder, change))
        if known.wrapped is not None:
            out = known.wrapped([self._make(each, args, kwargs, holder) for each in known.outputs])
        elif type(output := known.output) is New:
            spec = output[0]
            out = _wrap(
                Traced, spec.size, spec.stride, spec.offset, None, spec.dtype, _strided, spec.device
            )
            out.spec = spec
            out.lifeline = Lifeline(self._note, holder, spec.nbytes)
        else:
            out = self._make(output, args, kwargs, holder)
        for change in known.after:
            self._note((holder, change))
        return out

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
            elif kind in PLAIN:
                if why_untraceable(arg):
                    return None
                spec = spec_of(arg)
                if kind is _PARAMETER or spec.numel > SMALL:
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
        if self._alone:
            if func is _DETACH_IN_PLACE:  # which is autograd's
                return args[0]
            if self._needs_more_than_operators(func, types):
                self.wants_gradients = True
                self.give_up("autograd or autocast has a part in it")
        if func is _LIFT and type(args[0]) is Tensor:  # a literal, which most often is a number
            return self._compute(func, args, kwargs)
        if place is not None and func.name() in WHOLE and self._device.type == "cpu":
            return self._take_apart(func, args, kwargs, place)
        other = self._otherwise(func, types, args, kwargs)
        if other is not OBSERVE:
            return other
        try:
            return self._answer(func, args, kwargs, place, known)
        except NeedsValues as error:
            self.gave_up = self.gave_up or str(error)
            raise

    def _needs_more_than_operators(self, func: Any, types: Any) -> bool:
        """Tell whether what torch does above a mode matters: gradients, casts, kernels of others."""
        if autocast_depth() or _gradients_on() or _inferring():
            return True
        built_in = getattr(func, "namespace", "") in _BUILT_IN
        return not built_in or any(map(is_wrapper, types))

    def _compute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator on the few numbers that it takes."""
        __tracebackhide__ = True
        self._others += 1
        return super()._observe(func, args, kwargs)

    def _take_apart(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], place: tuple[Any, ...]
    ) -> Any:
        """Answer for an operator by those that it is made of, and remember which they were."""
        __tracebackhide__ = True
        log, events = self._ledger.log, self._liveness.events
        before = len(log), len(events), self._others
        self._on_operator()
        out = self._decomposed(func, args, kwargs)
        # What autocast makes of the parts is in no key.
        unknown = self._others != before[2] or len(events) < before[1] or autocast_depth()
        if not unknown:
            parts = [part for part, _ in log[before[0] :]]
            known = composed(func, args, kwargs, out, parts, events[before[1] :])
            if known is not None:
                self._table[place] = known
        return out

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
        tensors = [*tensors_in(args), *tensors_in(kwargs)]
        resolves = func is _aten.clone.default and _is_lazy(args[0])  # a conjugate view
        if resolves and self._values.suffice(func, args, kwargs, tensors):
            return self._compute(func, args, kwargs)
        for tensor in tensors:
            why = why_untraceable(tensor)
            if type(tensor) not in PLAIN and type(tensor) is not Traced:
                why = why or f"a {type(tensor).__name__}"
            if why:
                raise NeedsValues(f"{name_of(func)} takes {why}")
        if torch.Tag.inplace_view in func.tags and not self._liveness.is_inside(args[0]):
            reshape_in_place(func, args, kwargs)
            self._ledger.operators += 1
            self._others += 1
            return args[0]
        keeps_values = self._values.suffice(func, args, kwargs, tensors)
        if keeps_values and (_computes_nothing(func) or depends_on_values(func, args)):
            return self._compute(func, args, kwargs)
        if known is None:
            # A mode further out, such as that of a trace around this one, would answer as well.
            with _disable_current_modes() if _modes_further_out() else nullcontext():
                countable = self._values.masks_counted(func, args)
                outcome = outcome_of(func, countable, kwargs, self._device)
                if self._alone:  # else autograd sees to it
                    outcome = with_gradients(func, args, kwargs, outcome)
                known = remembered(func, args, kwargs, outcome)
            self._look_for_imports()
            tellable = place is not None and all(part == part for part in place)
            if tellable and rememberable(func) and countable is args:
                self._table[place] = known  # type: ignore[index]
        if keeps_values and not known.valueless:
            return self._compute(func, args, kwargs)
        reals = [
            tensor
            for tensor in tensors
            if type(tensor) is not Traced and id(tensor) not in self.inside
        ]
        return self._book(known, func, args, kwargs, reals)

    def _look_for_imports(self) -> None:
        """Collect garbage where modules were imported: their frames, in cycles, hold tensors.

        torch.fx.wrap, which a module calls while it is imported, leaves such a cycle behind.
        """
        if len(sys.modules) != self._imported:
            self._imported = len(sys.modules)
            gc.collect(0)  # what is in those cycles is as young as they are


def _has_lifeline(args: tuple[Any, ...]) -> bool:
    """Tell whether an operator that writes its first argument writes a tensor of the trace alone."""
    return bool(args) and type(getattr(args[0], "lifeline", None)) is Lifeline


def _is_lazy(tensor: Tensor) -> bool:
    return type(tensor) is Tensor and (tensor.is_conj() or tensor.is_neg())


def _computes_nothing(func: Any) -> bool:
    views = bool(func.is_view) or torch.Tag.inplace_view in func.tags
    return views or func in (_LIFT, _aten.lift.default)
