"""One tensor as it was: where its data lies, what it held, and what autograd knew of it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class KeptTensor:
    """One tensor: its data by reference, on demand its values, and what autograd knows of it."""

    def __init__(self, tensor: Tensor, *, copy: bool) -> None:
        self._tensor = tensor
        self._data = tensor.data
        self._values = tensor.detach().clone() if copy else None
        self._version = version_of(tensor)
        self._requires_grad = tensor.requires_grad
        self._tracked = is_tracked(tensor)
        self._grad = tensor.grad if is_leaf(tensor) else None
        # A second backward pass adds to a gradient in place.
        self._grad_values = None if self._grad is None else self._grad.detach().clone()
        self._grad_version = None if self._grad is None else version_of(self._grad)

    def restore(self) -> None:
        tensor = self._tensor
        if not self._tracked and not tensor._is_view() and is_tracked(tensor):
            tensor.detach_()
        if not _same_place(tensor, self._data):
            tensor.data = self._data
        if self._values is not None and version_of(tensor) != self._version:
            tensor.data.copy_(self._values)
        elif self._values is not None and not _equal(tensor, self._values):
            tensor.data.copy_(self._values)  # written past the version counter
        if is_leaf(tensor):
            if tensor.requires_grad != self._requires_grad:
                tensor.requires_grad_(self._requires_grad)
            if tensor.grad is not self._grad:
                tensor.grad = self._grad
            if (
                self._grad_values is not None
                and self._grad is not None
                and version_of(self._grad) != self._grad_version
            ):
                self._grad.detach().copy_(self._grad_values)
                set_version(self._grad, self._grad_version)
        set_version(tensor, self._version)


def is_tracked(tensor: Tensor) -> bool:
    """Tell whether autograd knows how a tensor came about.

    torch refuses to say so of a view whose base was written where gradients are off.
    """
    try:
        return tensor.grad_fn is not None
    except RuntimeError:
        return True


def is_leaf(tensor: Tensor) -> bool:
    """Tell whether a tensor is a leaf of autograd's graph; a view of which torch will not say is none."""
    try:
        return bool(tensor.is_leaf)
    except RuntimeError:
        return False


def version_of(tensor: Tensor) -> int | None:
    """Return the version counter of a tensor; inference tensors have none."""
    return None if tensor.is_inference() else tensor._version


def set_version(tensor: Tensor, version: int | None) -> None:
    """Set a version counter back, where it has moved."""
    import torch

    if version is not None and version_of(tensor) != version:
        torch._C._autograd._unsafe_set_version_counter((tensor,), (version,))


def is_uninitialised(tensor: object) -> bool:
    """Tell whether a parameter or buffer is lazy and has no shape yet."""
    from torch.nn.parameter import is_lazy

    return bool(is_lazy(tensor))  # type: ignore[arg-type]


def _same_place(tensor: Tensor, data: Tensor) -> bool:
    with suppress(RuntimeError, NotImplementedError):  # sparse and opaque tensors have no address
        return (
            tensor.data_ptr() == data.data_ptr()
            and tensor.shape == data.shape
            and tensor.stride() == data.stride()
            and tensor.dtype == data.dtype
            and tensor.device == data.device
        )
    return True


def _equal(tensor: Tensor, values: Tensor) -> bool:
    import torch

    if tensor.device.type == "meta":
        return True
    with suppress(Exception):  # subclasses fail in ways of their own; then they are copied
        return torch.equal(tensor.detach(), values)
    return False
