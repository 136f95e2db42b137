"""Which values a trace knows: those of small tensors that no operator of it would have written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pytest_nnscale.counting.coverage import Work, classify
from pytest_nnscale.counting.shapes import depends_on_values
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
        # held, so that their identities stay theirs.
        self._lost: dict[int, Any] = {}

    def lose(self, tensor: Tensor) -> None:
        """Note that what a tensor holds is not what it would hold by now."""
        storage = tensor.untyped_storage()
        self._lost[storage._cdata] = storage

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
        for tensor in tensors:
            if type(tensor) is Traced or tensor.is_meta or tensor.numel() > SMALL:
                return False
            if tensor.untyped_storage()._cdata in self._lost:
                return False
        return all(self._is_inside(tensor) for tensor in written_by(func, args, kwargs))
