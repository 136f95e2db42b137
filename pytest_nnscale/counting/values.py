"""Which values a trace knows: those of small tensors that no operator of it would have written."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pytest_nnscale.counting.coverage import Work, classify
from pytest_nnscale.counting.shapes import INDEXING, MASKS, depends_on_values
from pytest_nnscale.counting.traced import Traced
from pytest_nnscale.counting.writes import written_by

SMALL = 1 << 14  # elements up to which known values are kept


class KnownValues:
    """Tells which calls can be computed, since all that they take is known and small.

    `is_inside` tells what was made in the trace and may be written. On a `device` that this machine
    does not have no values are.
    """

    def __init__(self, is_inside: Callable[[Tensor], bool], device: torch.device) -> None:
        self._is_inside = is_inside
        missing = device.type == "cuda" and not torch.cuda.is_available()
        self._missing = device.type if missing else ""
        # Storages that an operator would have written, which a trace leaves as they are. They are
        # not held: what a trace keeps alive would count as memory.
        self._lost: dict[int, Callable[[], Any]] = {}

    def lose(self, tensor: Tensor) -> None:
        """Note that what a tensor holds is not what it would hold by now."""
        storage = tensor.untyped_storage()
        self._lost[storage._cdata] = weakref.ref(storage)

    def suffice(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: Sequence[Tensor],
    ) -> bool:
        """Tell whether a call is on small known values alone, and writes none that were there."""
        if classify(func) is not Work.FREE:
            return False
        if self._missing and torch.device(kwargs.get("device") or "cpu").type == self._missing:
            return False
        if not depends_on_values(func, args) and any(type(t) is nn.Parameter for t in tensors):
            return False  # weights are asked for their values, if at all, as they are
        if not all(map(self._knows, tensors)):
            return False
        return all(self._is_inside(tensor) for tensor in written_by(func, args, kwargs))

    def masks_counted(self, func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments of a call with known masks as the places where they are true.

        How many these are is in the shape of what indexing returns.
        """
        if func._overloadpacket not in INDEXING or not depends_on_values(func, args):
            return args
        indices: list[Any] = []
        for each in args[1]:
            if not isinstance(each, Tensor) or each.dtype not in MASKS:
                indices.append(each)
            elif self._knows(each):
                indices += each.nonzero().unbind(1)
            else:
                return args
        return (args[0], indices, *args[2:])

    def _knows(self, tensor: Tensor) -> bool:
        if type(tensor) is Traced or tensor.is_meta or tensor.numel() > SMALL:
            return False
        storage = tensor.untyped_storage()
        lost = self._lost.get(storage._cdata)
        return lost is None or lost() is not storage  # the address of one that died
