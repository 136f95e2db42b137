"""Where many tensors lie, and what autograd knows of them; their values are not copied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import is_
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_nnscale.preservation.tensors import KeptTensor, is_leaf, set_version, version_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Geometry(NamedTuple):
    """What many tensors are, property by property; a storage is told apart by its identity."""

    sizes: list[torch.Size]
    strides: list[tuple[int, ...]]
    offsets: list[int]
    dtypes: list[torch.dtype]
    devices: list[torch.device]
    need_grad: list[bool]
    versions: list[int | None]
    storages: list[int]  # on meta none has an address


class KeptPlaces:
    """Geometry, storage, flags and gradients of tensors of which no run writes the values.

    For traces, which write nothing: what can change of a tensor then is where it points to. All
    tensors are asked at once, property by property, which is several times faster than one by one.
    `tensors` are the dense ones, each once, `storages` theirs; are they `all_dense`?
    """

    def __init__(self, tensors: Iterable[Tensor], *, versions: bool = True) -> None:
        import torch

        self.tensors = [*{id(tensor): tensor for tensor in tensors}.values()]
        self._versions = versions
        self._others: list[KeptTensor] = []
        try:
            self._look()
        except (RuntimeError, NotImplementedError):  # sparse ones and others have no one place
            all_of_them = self.tensors
            self.tensors = [
                tensor
                for tensor in all_of_them
                if tensor.layout is torch.strided and not tensor.is_nested
            ]
            dense = {*map(id, self.tensors)}
            others = [tensor for tensor in all_of_them if id(tensor) not in dense]
            self._others = [KeptTensor(tensor, copy=False) for tensor in others]
            self._look()
        self.all_dense = not self._others
        self._below: KeptPlaces | None = None
        if self._gradients.count(None) < len(self._gradients):
            self._below = KeptPlaces(each for each in self._gradients if each is not None)

    def restore(self) -> None:
        """Put it back."""
        import torch

        if not all(map(is_, _gradients(self.tensors), self._gradients)):
            for tensor, gradient in zip(self.tensors, self._gradients, strict=True):
                if is_leaf(tensor) and tensor.grad is not gradient:
                    tensor.grad = gradient
        # No tensor goes to another device without another storage.
        storages = [*map(torch.Tensor.untyped_storage, self.tensors)]
        now = self._ask(self.geometry.devices, storages)
        if now != self.geometry:
            for place, tensor in enumerate(self.tensors):
                before: tuple[Any, ...] = tuple(answers[place] for answers in self.geometry)
                if tuple(answers[place] for answers in now) != before:
                    self._put_back(tensor, self.storages[place], *before)
        if self._below is not None:
            self._below.restore()
        for other in self._others:
            other.restore()

    def _look(self) -> None:
        """See where the tensors lie."""
        import torch

        of: Any = torch.Tensor
        self.storages = [*map(of.untyped_storage, self.tensors)]
        self.geometry = self._ask([*map(of.device.__get__, self.tensors)], self.storages)
        self._gradients = _gradients(self.tensors)

    def _ask(self, devices: list[torch.device], storages: Sequence[Any]) -> Geometry:
        import torch

        of: Any = torch.Tensor
        tensors = self.tensors
        versions: list[int | None] = []
        if self._versions:
            try:
                versions += map(of._version.__get__, tensors)
            except RuntimeError:  # tensors of inference_mode have none
                versions = [*map(version_of, tensors)]
        return Geometry(
            [*map(of.shape.__get__, tensors)],
            [*map(of.stride, tensors)],
            [*map(of.storage_offset, tensors)],
            [*map(of.dtype.__get__, tensors)],
            devices,
            [*map(of.requires_grad.__get__, tensors)],
            versions or [None] * len(tensors),
            [storage._cdata for storage in storages],
        )

    @staticmethod
    def _put_back(
        tensor: Tensor,
        storage: Any,
        size: torch.Size,
        stride: tuple[int, ...],
        offset: int,
        dtype: torch.dtype,
        device: torch.device,
        requires_grad: bool,
        version: int | None,
        identity: int,
    ) -> None:
        import torch

        moved = tensor.untyped_storage()._cdata != identity
        now = tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype
        if moved or now != (size, stride, offset, dtype):
            data = torch.empty(0, dtype=dtype, device=device)
            tensor.data = data.set_(storage, offset, size, stride)
        if is_leaf(tensor) and tensor.requires_grad != requires_grad:
            tensor.requires_grad_(requires_grad)
        # A write to a view of it that has no data is a write to it for autograd.
        set_version(tensor, version)


def _gradients(tensors: Sequence[Tensor]) -> list[Tensor | None]:
    import torch

    of: Any = torch.Tensor
    try:
        if all(map(of.is_leaf.__get__, tensors)):
            return [*map(of.grad.__get__, tensors)]
    except RuntimeError:
        pass  # a view whose base was written where gradients are off
    return [tensor.grad if is_leaf(tensor) else None for tensor in tensors]
