"""Tensors that existed before a run and are written during it, with what they held."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pytest_nnscale.preservation.tensors import is_leaf, is_tracked, set_version, version_of

# These write the running statistics at these positions, though their schemas do not say so.
_HIDDEN = {
    "native_batch_norm": (3, 4),
    "cudnn_batch_norm": (3, 4),
    "miopen_batch_norm": (3, 4),
    "batch_norm_gather_stats": (3, 4),
    "batch_norm_gather_stats_with_counts": (3, 4),
    "batch_norm_update_stats": (1, 2),
}


_EVALUATED = frozenset(
    getattr(torch.ops.aten, name)
    for name in ("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm")
)


def tensors_in(values: object) -> Iterator[Tensor]:
    """Give every tensor in nested lists, tuples and dicts."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors_in(value)
    elif isinstance(values, dict):
        for value in values.values():
            yield from tensors_in(value)


def writes_to(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], tensor: Tensor) -> bool:
    """Tell whether an operator writes a tensor, which is among its arguments."""
    return any(written is tensor for written in written_by(func, args, kwargs))


def written_by(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    """Yield the tensors among the arguments of an operator that it writes."""
    if _only_reads(func, args):
        return
    for position, name in _written_arguments(func):
        yield from tensors_in(args[position] if position < len(args) else kwargs.get(name))


class Writes:
    """Notes which earlier tensors operators write; with `preserve` copies them before."""

    def __init__(self, *, preserve: bool) -> None:
        self._preserve = preserve
        self._written: dict[int, _Before] = {}
        self._copies: dict[int, tuple[Any, Any]] = {}
        self._leaves: dict[int, tuple[Tensor, Tensor | None]] = {}

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor that existed before and was written, in the order of first writes."""
        return tuple(before.tensor for before in self._written.values())

    def before(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        is_inside: Callable[[Tensor], bool],
    ) -> None:
        """Note what an operator that is about to run will write of what existed before."""
        for tensor in written_by(func, args, kwargs):
            self.note(tensor, is_inside)

    def note(self, tensor: Tensor, is_inside: Callable[[Tensor], bool]) -> None:
        """Note a tensor that is about to be written, where it existed before."""
        if id(tensor) not in self._written and not is_inside(tensor):
            self._written[id(tensor)] = _Before(tensor)
            if self._preserve:
                self._copy(tensor)

    def leaves(self, tensors: Iterable[Tensor], is_inside: Callable[[Tensor], bool]) -> None:
        """Note the gradient that earlier leaves have before a backward pass changes it."""
        for tensor in tensors:
            known = not tensor.requires_grad or id(tensor) in self._leaves
            if not known and is_leaf(tensor) and not is_inside(tensor):
                self._leaves[id(tensor)] = (tensor, tensor.grad)

    def restore(self) -> None:
        """Put back contents, geometry, gradients and version counters, and let go of them."""
        with torch.no_grad():
            for storage, copy in self._copies.values():
                if storage.nbytes() != copy.nbytes():  # as observers of quantisation resize theirs
                    storage.resize_(copy.nbytes())
                storage.copy_(copy)
            for before in self._written.values():
                before.restore()
            for tensor, gradient in self._leaves.values():
                if tensor.grad is not gradient:
                    tensor.grad = gradient
        self._copies.clear()
        self._leaves.clear()

    def _copy(self, tensor: Tensor) -> None:
        try:
            storage = tensor.untyped_storage()
            if storage.device.type != "meta":
                self._copies.setdefault(storage._cdata, (storage, storage.clone()))
        except (RuntimeError, NotImplementedError):
            pass  # sparse and opaque tensors have no storage of their own


class _Before:
    """A tensor as it was before it was written."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self._version = version_of(tensor)
        self._tracked = is_tracked(tensor)
        self._geometry = _geometry(tensor)

    def restore(self) -> None:
        tensor = self.tensor
        if not self._tracked and not tensor._is_view() and is_tracked(tensor):
            tensor.detach_()
        if self._geometry is not None and _geometry(tensor) != self._geometry:
            storage, offset, size, stride = self._geometry
            tensor.set_(storage, offset, size, stride)
        set_version(tensor, self._version)


def _geometry(tensor: Tensor) -> tuple[Any, int, torch.Size, tuple[int, ...]] | None:
    try:
        return (
            tensor.untyped_storage(),
            int(tensor.storage_offset()),
            tensor.size(),
            tensor.stride(),
        )
    except (RuntimeError, NotImplementedError):
        return None


def _only_reads(func: Any, args: tuple[Any, ...]) -> bool:
    """Tell whether a batch norm uses its running statistics as they are."""
    return getattr(func, "_overloadpacket", None) in _EVALUATED and args[5:6] == (False,)


@functools.cache
def _written_arguments(func: Any) -> tuple[tuple[int, str], ...]:
    schema = getattr(func, "_schema", None)
    if schema is None:
        return ()
    hidden = _HIDDEN.get(str(schema.name).removeprefix("aten::"), ())
    return tuple(
        (position, argument.name)
        for position, argument in enumerate(schema.arguments)
        if position in hidden or (argument.alias_info is not None and argument.alias_info.is_write)
    )
