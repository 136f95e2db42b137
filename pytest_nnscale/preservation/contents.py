"""The attributes of a module, and what lists, dicts, sets and plain objects hold."""

from __future__ import annotations

import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pytest_nnscale.preservation.tensors import is_uninitialised

if TYPE_CHECKING:
    from torch import nn

# Four levels hold a cache of layers of tensors; a data set that hangs on a model is not searched.
_LEVELS = 4
_CONTAINERS = (dict, OrderedDict, defaultdict, list, set, deque)
_ATOMS = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType)


class KeptContents:
    """What nested containers and objects hold, and the state of generators among them."""

    def __init__(self, tree: object) -> None:
        self._held: dict[int, tuple[Any, Any]] = {}
        self._drawn: list[tuple[Any, Any]] = []
        self._seen: set[int] = set()
        self._keep(tree, _LEVELS)

    def restore(self) -> None:
        """Put back what each container held, and where each generator stood."""
        for container, contents in self._held.values():
            _refill(container, contents)
        for generator, state in self._drawn:
            generator.set_state(state)

    def _keep(self, value: object, levels: int) -> None:
        import torch

        if isinstance(value, _ATOMS) or id(value) in self._seen:
            return
        self._seen.add(id(value))
        if isinstance(value, torch.Generator):
            self._drawn.append((value, value.get_state()))
        if isinstance(value, torch.Tensor | torch.nn.Module) or callable(value):
            return  # modules and tensors are kept for themselves
        held: Any = value
        if type(value) not in _CONTAINERS and not isinstance(value, tuple):
            held = getattr(value, "__dict__", None)
        if type(held) in _CONTAINERS:
            self._held[id(held)] = (held, held.copy())
        inside: Iterable[object] = (
            held.values() if isinstance(held, dict) else held if held is not None else ()
        )
        if levels:
            for item in tuple(inside):
                self._keep(item, levels - 1)


class KeptAttributes:
    """The attributes of one module, and what they hold."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._lazy = any(
            is_uninitialised(value)
            for kept in (module._parameters, module._buffers)
            for value in kept.values()
        )
        # A frozen scripted module has none.
        self._training = getattr(module, "training", None)
        self._saved = dict(vars(module))
        self._contents = KeptContents([*self._saved.values()])

    def restore(self) -> None:
        """Put back every attribute by reference, and what containers among them held."""
        module, now = self._module, vars(self._module)
        if not self._lazy:
            for name in [name for name in now if name not in self._saved]:
                del now[name]
            now.update(self._saved)
            self._contents.restore()
        # A scripted module keeps its flag elsewhere.
        if self._training is not None and module.training != self._training:
            module.training = self._training


def _refill(container: Any, contents: Any) -> None:
    if isinstance(container, dict):
        if [(k, id(v)) for k, v in container.items()] == [(k, id(v)) for k, v in contents.items()]:
            return
        container.clear()
        container.update(contents)
    elif isinstance(container, list):
        container[:] = contents
    elif isinstance(container, deque):
        container.clear()
        container.extend(contents)
    elif container != contents:
        container.clear()
        container.update(contents)
