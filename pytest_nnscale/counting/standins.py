"""Traced tensors in the place of a model's own, where these live elsewhere than the trace does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from pytest_nnscale.counting.liveness import Lifeline, Liveness, MadeBy
from pytest_nnscale.counting.shapes import why_untraceable
from pytest_nnscale.counting.specs import spec
from pytest_nnscale.counting.traced import NeedsValues, Traced, traced
from pytest_nnscale.workload import tensors_in


class StandIns:
    """Makes one traced tensor for each tensor on meta, and puts it in its place.

    With `everything` also for each that is on another device than `device`.
    """

    def __init__(self, device: torch.device, liveness: Liveness, *, everything: bool) -> None:
        self._device, self._everything = device, everything
        self._liveness = liveness
        self._nobody = MadeBy(0, "inputs")
        # The originals are held, so that their ids stay theirs.
        self._made: dict[int, tuple[Tensor, Traced]] = {}
        self._replaced: list[tuple[dict[str, Any], str, Tensor]] = []

    def put_into(self, modules: Iterable[nn.Module]) -> None:
        """Replace parameters and buffers of modules, until `restore`."""
        for module in modules:
            for kept in (module._parameters, module._buffers):
                for name, tensor in kept.items():
                    if tensor is not None and not self._at_home(tensor):
                        self._replaced.append((kept, name, tensor))
                        kept[name] = self.of(tensor)  # type: ignore[assignment]

    def inside(self, tree: Any) -> Any:
        """Return nested inputs with their tensors replaced; the same where none needs to be."""
        if all(map(self._at_home, tensors_in(tree))):
            return tree
        leaves, shape = _pytree.tree_flatten(tree)
        replaced = [
            self.of(leaf) if isinstance(leaf, Tensor) and not self._at_home(leaf) else leaf
            for leaf in leaves
        ]
        return _pytree.tree_unflatten(replaced, shape)

    def of(self, tensor: Tensor) -> Traced:
        """Return the one traced tensor that stands for another."""
        known = self._made.get(id(tensor))
        if known is not None:
            return known[1]
        why = why_untraceable(tensor)
        if why or type(tensor) not in (Tensor, nn.Parameter, nn.Buffer):
            raise NeedsValues(f"the model keeps {why or f'a {type(tensor).__name__}'}")
        found = spec(
            tuple(tensor.shape),
            tuple(tensor.stride()),
            tensor.dtype,
            self._device,
            int(tensor.storage_offset()),
            needs_grad=tensor.requires_grad,
        )
        made = traced(found, Lifeline(self._liveness.note, self._nobody, 0))
        made._is_param = isinstance(tensor, nn.Parameter)
        self._made[id(tensor)] = (tensor, made)
        return made

    def restore(self) -> None:
        """Put the originals back."""
        while self._replaced:
            kept, name, tensor = self._replaced.pop()
            kept[name] = tensor
        self._made.clear()  # and with them the gradients that they were given

    def _at_home(self, tensor: Tensor) -> bool:
        if self._everything:
            return tensor.device == self._device
        return not tensor.is_meta
