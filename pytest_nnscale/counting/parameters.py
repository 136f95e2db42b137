"""The parameters that operators read, whoever they belong to."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pytest_nnscale.counting.writes import writes_to
from pytest_nnscale.naming import parts_of


class ParametersRead:
    """Notes each nn.Parameter that is read, and keeps none of them alive."""

    def __init__(self) -> None:
        self._seen: dict[int, weakref.ref[Tensor]] = {}
        self._notes: dict[int, tuple[weakref.ref[Tensor], torch.Size, torch.dtype, bool]] = {}

    def read(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: Iterable[Tensor]
    ) -> None:
        """Note the parameters among the inputs of an operator that it does more to than write."""
        for tensor in inputs:
            if type(tensor) is Tensor:
                continue
            seen = self._seen.get(id(tensor))
            known = seen is not None and seen() is tensor
            if not known and isinstance(tensor, nn.Parameter) and not is_lazy(tensor):
                # Making a model writes its parameters, and state_dict() detaches them: neither
                # is a use of them.
                if func is torch.ops.aten.detach.default or writes_to(func, args, kwargs, tensor):
                    continue
                reference: weakref.ref[Tensor] = weakref.ref(tensor)
                # There is one such reference for each object, as long as one is held.
                note = (reference, tensor.shape, tensor.dtype, tensor.requires_grad)
                self._notes[id(reference)] = note
                if func is not torch.ops.aten._to_copy.default:  # model.half(): look once more
                    self._seen[id(tensor)] = reference

    def outside(self, modules: Iterable[nn.Module]) -> tuple[Tensor, ...]:
        """Return those that belong to none of some modules; for the dead ones a meta tensor."""
        if not self._notes:
            return ()
        inside = {
            id(parameter)
            for module in modules
            for part in parts_of(module)
            for parameter in part._parameters.values()
        }
        found = []
        for reference, shape, dtype, requires_grad in self._notes.values():
            tensor = reference()
            if tensor is None:
                dead = torch.empty(shape, dtype=dtype, device="meta")
                found.append(dead.requires_grad_(requires_grad))
            elif id(tensor) not in inside:
                found.append(tensor)
        return tuple(found)
