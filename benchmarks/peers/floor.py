"""The least that counting by dispatch can cost: recorded outputs handed back by a bare mode."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode


class _Recorder(TorchDispatchMode):
    """Runs a model once and keeps what each operator returned: how to make the like of it."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Any] = []

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, tuple | list):
            self.outputs.append([_geometry(each) for each in out])
        else:
            self.outputs.append(None if func._schema.is_mutable else _geometry(out))
        return out


class _Replay(TorchDispatchMode):
    """Hands out the like of what was recorded, one by one."""

    def __init__(self, outputs: list[Any]) -> None:
        super().__init__()
        self._next = iter(outputs).__next__

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = self._next()
        if found is None:
            return args[0]
        if type(found) is list:
            return tuple(_made(each) for each in found)
        return _made(found)


def _geometry(tensor: Any) -> Any:
    if not isinstance(tensor, torch.Tensor):
        return None
    return tuple(tensor.shape), tensor.stride(), tensor.dtype


class _Hollow(torch.Tensor):
    """A tensor without data that says it is on the CPU, so that the model takes its usual path."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise NotImplementedError(func)


def _made(geometry: Any) -> Any:
    if geometry is None:
        return None
    size, stride, dtype = geometry
    return torch.Tensor._make_wrapper_subclass(
        _Hollow, size, strides=stride, dtype=dtype, device="cpu"
    )


@contextmanager
def _without_autograd() -> Any:
    """Have operators dispatched whole, as a trace of an inference has them."""
    with torch.no_grad(), torch._C._AutoDispatchBelowADInplaceOrView():
        yield


def record(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[Any]:
    """Run a model for real; return what its operators gave."""
    with _without_autograd(), _Recorder() as recorder:
        model(*inputs)
    return recorder.outputs


@contextmanager
def _followed() -> Any:
    """Know which module runs, by the cheapest hooks there are."""
    stack: list[nn.Module] = []
    with ExitStack() as hooks:
        enter = register_module_forward_pre_hook(lambda module, _: stack.append(module))
        hooks.callback(enter.remove)
        leave = register_module_forward_hook(lambda *_: stack.pop() and None)
        hooks.callback(leave.remove)
        yield


def replay(
    model: nn.Module, inputs: tuple[torch.Tensor, ...], outputs: list[Any], *, hooks: bool
) -> None:
    """Run a model on recorded outputs, with or without a hook on each module."""
    with ExitStack() as stack:
        if hooks:
            stack.enter_context(_followed())
        stack.enter_context(_without_autograd())
        stack.enter_context(_Replay(outputs))
        model(*inputs)
