"""A tensor that has a shape and no values, and what is said where values are asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pytest_nnscale.counting.liveness import Lifeline
from pytest_nnscale.counting.specs import Spec, spec_of


class NeedsValues(Exception):
    """A trace came to where shapes are not enough; its text says where."""


_requires_grad: Any = Tensor.requires_grad


class Traced(Tensor):
    """A tensor of a trace: shape, strides, dtype and device are right, and there is no data.

    torch reads shape and device from it as from any tensor, and refuses every kernel and every
    address; the mode that made it answers for its operators, and nobody once that has ended.
    """

    __slots__ = ("lifeline", "spec")
    spec: Spec
    lifeline: Lifeline | Tensor | None
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        raise NeedsValues(f"{func} was called on a tensor that was left over from a trace")

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"<traced {self.dtype} of {tuple(self.shape)} on {self.device}>"

    def requires_grad_(self, requires_grad: bool = True) -> Traced:
        """Have it need a gradient, or not, and say so to what remembers calls."""
        super().requires_grad_(requires_grad)
        self.spec = self.spec.with_gradient(requires_grad)
        return self

    @property
    def requires_grad(self) -> bool:
        """Whether it needs a gradient."""
        return _requires_grad.__get__(self)  # type: ignore[no-any-return]

    @requires_grad.setter
    def requires_grad(self, needed: bool) -> None:
        self.requires_grad_(needed)

    def data_ptr(self) -> int:
        """Refuse: two tensors without data would seem to share it."""
        raise NeedsValues("the address of a tensor was asked for")

    def __dlpack__(self, *_: object, **__: object) -> Any:
        """Refuse: whoever takes it would read from no address."""
        raise NeedsValues("the memory of a tensor was asked for")

    def share_memory_(self) -> Traced:
        """Refuse: there is no memory to move."""
        raise NeedsValues("the memory of a tensor was to be shared")

    def __reduce_ex__(self, _protocol: Any) -> Any:
        raise NeedsValues("a tensor was copied or pickled")

    def __deepcopy__(self, _memo: Any) -> Any:
        raise NeedsValues("a tensor was copied deeply")


_wrap = Tensor._make_wrapper_subclass
_strided = torch.strided


def traced(spec: Spec, lifeline: Lifeline | Tensor | None) -> Traced:
    """Make a tensor of a spec whose bytes live on a lifeline: its own, or that of what it views.

    What views a real tensor holds that; what has no bytes needs none.
    """
    made: Traced = _wrap(
        Traced, spec.size, spec.stride, spec.offset, None, spec.dtype, _strided, spec.device
    )
    made.spec, made.lifeline = spec, lifeline
    if spec.needs_grad:
        made.requires_grad_()
    return made


_RESHAPING = frozenset(
    {
        torch.ops.aten.t_,
        torch.ops.aten.transpose_,
        torch.ops.aten.squeeze_,
        torch.ops.aten.unsqueeze_,
        torch.ops.aten.swapaxes_,
        torch.ops.aten.swapdims_,
        torch.ops.aten.as_strided_,
        torch.ops.aten.detach_,
    }
)


def reshape_in_place(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Change how a traced tensor is seen: torch's own kernel does that, which reads no data.

    NeedsValues is raised for a tensor that is not traced, and for operators that make room.
    """
    tensor = args[0]
    if type(tensor) is not Traced or func._overloadpacket not in _RESHAPING:
        raise NeedsValues(f"{func.name()} changes a tensor's shape in place")
    with torch._C._DisableTorchDispatch():
        func(*args, **kwargs)
    tensor.spec = spec_of(tensor)
