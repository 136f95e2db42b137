"""The attributes of modules, and what lists, dicts, sets and plain objects hold."""

from __future__ import annotations

import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable
from functools import cache
from operator import is_
from typing import TYPE_CHECKING, Any

from pytest_nnscale.preservation.tensors import is_uninitialised

if TYPE_CHECKING:
    from torch import nn

# Four levels hold a cache of layers of tensors; a data set that hangs on a model is not searched.
_LEVELS = 4
CONTAINERS = frozenset({dict, OrderedDict, defaultdict, list, set, deque})
_ATOMS = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType)
ATOM_TYPES = frozenset(_ATOMS)


@cache
def _kept_apart() -> tuple[type, ...]:
    """Return what is no container: modules and tensors are kept for themselves."""
    import torch

    return (torch.Tensor, torch.nn.Module)


class KeptContents:
    """What nested containers and objects hold, and the state of generators among them."""

    def __init__(self, tree: object = ()) -> None:
        self._held: list[tuple[Any, Any]] = []
        self._empty: list[Any] = []
        self._drawn: list[tuple[Any, Any]] = []
        self._seen: set[int] = set()
        self.keep(tree)

    def keep(self, tree: object, levels: int = _LEVELS) -> None:
        """Note what a value holds, and what is held in it, some levels deep."""
        kind = type(tree)
        if kind in ATOM_TYPES or id(tree) in self._seen:
            return
        self._seen.add(id(tree))
        if kind in CONTAINERS:
            held: Any = tree
        elif isinstance(tree, tuple):
            held = tree
        else:
            held = self._inside(tree)
            if held is None:
                return
        if type(held) in CONTAINERS:
            if not held:
                self._empty.append(held)
                return
            self._held.append((held, held.copy()))
        if levels:
            inside: Iterable[object] = held.values() if isinstance(held, dict) else held
            for item in tuple(inside):
                if type(item) not in ATOM_TYPES and not isinstance(item, _kept_apart()):
                    self.keep(item, levels - 1)

    def keep_empty(self, container: Any) -> None:
        """Note that a container holds nothing."""
        self._empty.append(container)

    def _inside(self, value: Any) -> Any:
        """Return the attributes of a plain object."""
        import torch

        if isinstance(value, (*_ATOMS, *_kept_apart())) or callable(value):
            return None
        if isinstance(value, torch.Generator):
            self._drawn.append((value, value.get_state()))
        return getattr(value, "__dict__", None)

    def restore(self) -> None:
        """Put back what each container held, and where each generator stood."""
        for container in self._empty:
            if container:
                container.clear()
        for container, contents in self._held:
            refill(container, contents)
        for generator, state in self._drawn:
            generator.set_state(state)


class KeptAttributes:
    """The attributes of one module, of which `contents` keeps what they hold."""

    def __init__(self, module: nn.Module, contents: KeptContents) -> None:
        self._module = module
        kept = (*module._parameters.values(), *module._buffers.values())
        self._lazy = any(is_uninitialised(tensor) for tensor in kept)
        # A frozen scripted module has none.
        self._training = getattr(module, "training", None)
        self._saved = vars(module).copy()
        if not self._lazy:
            for value in self._saved.values():
                kind = type(value)
                if kind not in ATOM_TYPES:
                    if kind in CONTAINERS and not value:
                        contents.keep_empty(value)
                    else:
                        contents.keep(value, _LEVELS - 1)

    def restore(self) -> None:
        """Put back every attribute by reference."""
        module, now = self._module, vars(self._module)
        if not self._lazy and not same_dict(now, self._saved):
            for name in [name for name in now if name not in self._saved]:
                del now[name]
            now.update(self._saved)
        # A scripted module keeps its flag elsewhere.
        if self._training is not None and module.training != self._training:
            module.training = self._training


def same_dict(one: dict[Any, Any], other: dict[Any, Any]) -> bool:
    """Tell whether two dicts hold the same objects in the same order; nothing is compared."""
    return (
        len(one) == len(other)
        and all(map(is_, one, other))
        and all(map(is_, one.values(), other.values()))
    )


def refill(container: Any, contents: Any) -> None:
    """Have a container hold again what it held."""
    if isinstance(container, dict):
        if not same_dict(container, contents):
            container.clear()
            container.update(contents)
    elif isinstance(container, list):
        if len(container) != len(contents) or not all(map(is_, container, contents)):
            container[:] = contents
    elif isinstance(container, deque):
        container.clear()
        container.extend(contents)
    elif container != contents:
        container.clear()
        container.update(contents)
