"""The model is the user's: what a run may change in modules and tensors, noted and put back.

Put back: values of buffers and of the tensors handed over, gradients (by reference),
requires_grad, train and eval flags, hooks, attributes of every submodule, version counters, a
grad_fn that a buffer acquired, the random number generators of torch, Python and NumPy, and the
grad mode. Not put back: the values of parameters, unless asked for; the inside of objects that
attributes refer to, beyond one level of dict, list or set; and lazily initialised modules
(nn.LazyLinear), which a first forward initialises for good: they stay initialised.
"""

from __future__ import annotations

import random
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def preserved(
    modules: Iterable[nn.Module], tensors: Iterable[Tensor] = (), *, parameters: bool = False
) -> Iterator[None]:
    """Put modules, tensors, random number generators and grad mode back on exit, also on raise.

    Buffers and `tensors` are copied up front; parameters too with `parameters=True`, which costs
    as much memory again as the model.
    """
    generators = Generators()
    keepsake = Keepsake(modules, tensors, parameters=parameters)
    try:
        yield
    finally:
        keepsake.restore()
        generators.restore()


class Generators:
    """The state of every random number generator in use, and the grad mode."""

    def __init__(self) -> None:
        import torch

        self._torch = torch.get_rng_state()
        # Asking for the state of a device that nobody uses would initialise it.
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        self._python = random.getstate()
        numpy = sys.modules.get("numpy")
        self._numpy: Any = numpy.random.get_state() if numpy is not None else None
        self._gradients = torch.is_grad_enabled()

    def restore(self) -> None:
        """Put them back."""
        import torch

        torch.set_rng_state(self._torch)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)
        random.setstate(self._python)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)
        torch.set_grad_enabled(self._gradients)


class Keepsake:
    """Modules and tensors as they were when it was made."""

    def __init__(
        self,
        modules: Iterable[nn.Module],
        tensors: Iterable[Tensor] = (),
        *,
        parameters: bool = False,
    ) -> None:
        import torch

        parts = {id(part): part for module in modules for part in module.modules()}
        self._attributes = [_Attributes(part) for part in parts.values()]
        self._tensors: dict[int, _Tensor] = {}
        with torch.no_grad():
            for tensor in tensors:
                self._keep(tensor, copy=True)
            for part in parts.values():
                for buffer in part.buffers(recurse=False):
                    self._keep(buffer, copy=True)
                for parameter in part.parameters(recurse=False):
                    self._keep(parameter, copy=parameters)

    def _keep(self, tensor: Tensor, *, copy: bool) -> None:
        if id(tensor) not in self._tensors and not _is_uninitialised(tensor):
            self._tensors[id(tensor)] = _Tensor(tensor, copy=copy)

    def restore(self) -> None:
        """Put everything back."""
        import torch

        with torch.no_grad():
            for attributes in self._attributes:
                attributes.restore()
            for tensor in self._tensors.values():
                tensor.restore()


class _Tensor:
    """One tensor: its data by reference, on demand its values, and what autograd knows of it."""

    def __init__(self, tensor: Tensor, *, copy: bool) -> None:
        self._tensor = tensor
        self._data = tensor.data
        self._values = tensor.detach().clone() if copy else None
        self._version = version_of(tensor)
        self._requires_grad = tensor.requires_grad
        self._tracked = tensor.grad_fn is not None
        self._grad = tensor.grad if tensor.is_leaf else None

    def restore(self) -> None:
        tensor = self._tensor
        if tensor.grad_fn is not None and not self._tracked and not tensor._is_view():
            tensor.detach_()
        if not _same_place(tensor, self._data):
            tensor.data = self._data
        if self._values is not None and version_of(tensor) != self._version:
            tensor.data.copy_(self._values)
        elif self._values is not None and not _equal(tensor, self._values):
            tensor.data.copy_(self._values)  # written past the version counter
        if tensor.is_leaf:
            if tensor.requires_grad != self._requires_grad:
                tensor.requires_grad_(self._requires_grad)
            if tensor.grad is not self._grad:
                tensor.grad = self._grad
        set_version(tensor, self._version)


class _Attributes:
    """The attributes of one module, and what its dicts, lists and sets hold."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._lazy = any(
            _is_uninitialised(value)
            for kept in (module._parameters, module._buffers)
            for value in kept.values()
        )
        self._training = module.training
        self._saved = dict(vars(module))
        self._contents = {
            name: value.copy()
            for name, value in self._saved.items()
            if type(value) in (dict, OrderedDict, list, set)
        }

    def restore(self) -> None:
        module, now = self._module, vars(self._module)
        if not self._lazy:
            for name in [name for name in now if name not in self._saved]:
                del now[name]
            now.update(self._saved)
            for name, contents in self._contents.items():
                _refill(self._saved[name], contents)
        if module.training != self._training:  # a scripted module keeps its flag elsewhere
            module.training = self._training


def _refill(container: Any, contents: Any) -> None:
    if isinstance(container, dict):
        if [(k, id(v)) for k, v in container.items()] == [(k, id(v)) for k, v in contents.items()]:
            return
        container.clear()
        container.update(contents)
    elif isinstance(container, list):
        container[:] = contents
    elif container != contents:
        container.clear()
        container.update(contents)


def version_of(tensor: Tensor) -> int | None:
    """Return the version counter of a tensor; inference tensors have none."""
    return None if tensor.is_inference() else tensor._version


def set_version(tensor: Tensor, version: int | None) -> None:
    """Set a version counter back, where it has moved."""
    import torch

    if version is not None and version_of(tensor) != version:
        torch._C._autograd._unsafe_set_version_counter((tensor,), (version,))


def _is_uninitialised(tensor: object) -> bool:
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
    with suppress(RuntimeError, NotImplementedError):
        return torch.equal(tensor.detach(), values)
    return False
