"""What is known of a tensor without its values: interned, so that equal ones are identical."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class Spec:
    """Shape, strides, offset, dtype and device of one strided tensor; made by `spec` alone.

    `room` is for how many elements its storage is made, where these are more than it shows. Of
    tensors that were there before the trace, and of views of them, it is told whether they need a
    gradient: some operators, such as matmul, are made of others accordingly.
    """

    __slots__ = (
        "device",
        "dtype",
        "nbytes",
        "needs_grad",
        "numel",
        "offset",
        "room",
        "size",
        "stride",
    )

    def __init__(
        self,
        size: tuple[int, ...],
        stride: tuple[int, ...],
        offset: int,
        dtype: torch.dtype,
        device: torch.device,
        room: int,
        *,
        needs_grad: bool,
    ) -> None:
        self.size, self.stride, self.offset, self.room = size, stride, offset, room
        self.dtype, self.device, self.needs_grad = dtype, device, needs_grad
        numel = 1
        for length in size:
            numel *= length
        self.numel = numel
        self.nbytes = max(room, extent(size, stride, offset)) * dtype.itemsize

    def with_gradient(self, needs_grad: bool = True) -> Spec:
        """Return the spec of such a tensor that needs a gradient, or does not."""
        place = self.size, self.stride, self.dtype, self.device, self.offset, self.room
        return spec(*place, needs_grad=needs_grad)

    def __repr__(self) -> str:
        return f"{self.dtype}{list(self.size)} by {list(self.stride)} on {self.device}"


_interned: dict[tuple[Any, ...], Spec] = {}


def spec(
    size: tuple[int, ...],
    stride: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    offset: int = 0,
    room: int = 0,
    needs_grad: bool = False,
) -> Spec:
    """Return the one spec of these properties."""
    key = (size, stride, offset, dtype, device, room, needs_grad)
    found = _interned.get(key)
    if found is None:
        size, stride = tuple(map(int, size)), tuple(map(int, stride))
        key = (size, stride, int(offset), dtype, device, room, needs_grad)
        found = _interned[key] = Spec(
            size, stride, int(offset), dtype, device, room, needs_grad=needs_grad
        )
    return found


def specs(keys: Iterable[tuple[Any, ...]]) -> list[Spec]:
    """Return the specs of many tensors, from size, strides, offset, dtype, device, room and flag."""
    keys = [*keys]
    found = [*map(_interned.get, keys)]
    if None in found:
        for place, key in enumerate(keys):
            if found[place] is None:
                size, stride, offset, dtype, device, room, needs_grad = key
                found[place] = spec(size, stride, dtype, device, offset, room, needs_grad)
    return found  # type: ignore[return-value]


def spec_of(tensor: Tensor) -> Spec:
    """Return the spec of a strided tensor as it is now."""
    offset: Any = tensor.storage_offset()
    place = tensor.shape, tensor.stride(), tensor.dtype, tensor.device, offset
    return spec(*place, needs_grad=tensor.requires_grad)


def forget_specs() -> None:
    """Let go of all specs; whatever is keyed by them has to go first."""
    _interned.clear()


def extent(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> int:
    """Return how many elements a storage needs to hold such a tensor."""
    last = offset
    for length, step in zip(size, stride, strict=True):
        if length == 0:
            return 0
        last += (length - 1) * step
    return last + 1


def contiguous(size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor of some size."""
    strides, step = [], 1
    for length in reversed(size):
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides))
