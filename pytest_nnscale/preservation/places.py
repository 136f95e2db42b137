"""Where many tensors lie, and what autograd knows of them; their values are not copied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pytest_nnscale.preservation.tensors import KeptTensor, set_version, version_of

if TYPE_CHECKING:
    from torch import Tensor


class KeptPlaces:
    """Geometry, storage, flags and gradients of tensors of which no run writes the values.

    For traces, which write nothing: what can change of a tensor then is where it points to. All
    tensors are asked at once, property by property, which is several times faster than one by one.
    `tensors` are the dense ones, each once, `storages` theirs.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        import torch

        found = {id(tensor): tensor for tensor in tensors}
        self._others: list[KeptTensor] = []
        self.tensors = [*found.values()]
        of: Any = torch.Tensor
        if {*map(of.layout.__get__, self.tensors)} - {torch.strided} or any(
            map(of.is_nested.__get__, self.tensors)
        ):
            dense = {
                key: tensor
                for key, tensor in found.items()
                if tensor.layout is torch.strided and not tensor.is_nested
            }
            self.tensors = [*dense.values()]
            others = [tensor for key, tensor in found.items() if key not in dense]
            self._others = [KeptTensor(tensor, copy=False) for tensor in others]
        self._gradients = _gradients(self.tensors)
        self._below: KeptPlaces | None = None
        if any(gradient is not None for gradient in self._gradients):
            self._below = KeptPlaces(each for each in self._gradients if each is not None)
        self.storages = [*map(torch.Tensor.untyped_storage, self.tensors)]
        self.geometry = self._ask()

    def restore(self) -> None:
        """Put it back."""
        if [*map(id, _gradients(self.tensors))] != [*map(id, self._gradients)]:
            for tensor, gradient in zip(self.tensors, self._gradients, strict=True):
                if tensor.is_leaf and tensor.grad is not gradient:
                    tensor.grad = gradient
        now = self._ask()
        if now != self.geometry:
            for place, tensor in enumerate(self.tensors):
                if any(
                    new[place] != old[place] for new, old in zip(now, self.geometry, strict=True)
                ):
                    self._put_back(place, tensor)
        if self._below is not None:
            self._below.restore()
        for other in self._others:
            other.restore()

    def _ask(self) -> list[list[Any]]:
        """Return the columns: shapes, strides, offsets, dtypes, devices, flags, versions, storages."""
        import torch

        of = torch.Tensor
        questions: tuple[Any, ...] = (
            of.shape.__get__,  # type: ignore[attr-defined]
            of.stride,
            of.storage_offset,
            of.dtype.__get__,  # type: ignore[attr-defined]
            of.device.__get__,
            of.requires_grad.__get__,  # type: ignore[attr-defined]
        )
        # A storage is told apart by its identity: on meta none has an address.
        storages = map(of.untyped_storage, self.tensors)
        identities = [storage._cdata for storage in storages]
        try:
            versions: list[int | None] = [*map(of._version.__get__, self.tensors)]  # type: ignore[attr-defined]
        except RuntimeError:  # tensors of inference_mode have none
            versions = [*map(version_of, self.tensors)]
        return [*([*map(ask, self.tensors)] for ask in questions), versions, identities]

    def _put_back(self, place: int, tensor: Tensor) -> None:
        import torch

        size, stride, offset, dtype, device, requires_grad, version, storage = (
            answers[place] for answers in self.geometry
        )
        moved = tensor.untyped_storage()._cdata != storage
        if moved or (tensor.shape, tensor.stride(), tensor.dtype) != (size, stride, dtype):
            data = torch.empty(0, dtype=dtype, device=device)
            tensor.data = data.set_(self.storages[place], offset, size, stride)
        if tensor.is_leaf and tensor.requires_grad != requires_grad:
            tensor.requires_grad_(requires_grad)
        # A write to a view of it that has no data is a write to it for autograd.
        set_version(tensor, version)


def _gradients(tensors: Sequence[Tensor]) -> list[Tensor | None]:
    import torch

    of: Any = torch.Tensor
    if all(map(of.is_leaf.__get__, tensors)):
        return [*map(of.grad.__get__, tensors)]
    return [tensor.grad if tensor.is_leaf else None for tensor in tensors]
