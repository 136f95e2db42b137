"""Modules and inputs as they were, for a run that writes no values: a trace.

What is compared is compared for all modules at once, in a few passes of C, since a trace of a small
model takes no longer than asking each of its modules for each of its attributes would.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from operator import is_
from typing import TYPE_CHECKING, Any

from pytest_nnscale.naming import kept_by
from pytest_nnscale.preservation.contents import (
    ATOM_TYPES,
    CONTAINERS,
    KeptContents,
    refill,
    same_dict,
)
from pytest_nnscale.preservation.places import KeptPlaces

if TYPE_CHECKING:
    from torch import Tensor, nn


class Outline:
    """The attributes of modules, what these hold some levels deep, and where tensors lie.

    `kinds` are the types of all attributes, `places` has the tensors, each once, `owners` the id of
    the module that keeps each, of those that any does.
    """

    def __init__(
        self,
        parts: Sequence[nn.Module] = (),
        tensors: Iterable[Tensor] = (),
        *,
        inputs: object = (),
    ) -> None:
        self._dicts: list[dict[str, Any]] = [vars(part) for part in parts]
        self._saved = [attributes.copy() for attributes in self._dicts]
        values = [*chain.from_iterable(map(dict.values, self._dicts))]
        self._values, self._sizes = values, [*map(len, self._dicts)]
        self.kinds = {*map(type, values)}
        self._containers = [value for value in values if type(value) in CONTAINERS]
        self._lengths = [*map(len, self._containers)]
        self._filled = [container for container in self._containers if container]
        self._contents = [container.copy() for container in self._filled]
        inner = [*chain.from_iterable(map(_items_of, self._filled))]
        self._items, self._fillings = inner, [*map(len, self._filled)]
        in_tuples = [*chain.from_iterable(value for value in values if type(value) is tuple)]
        unusual = _holding(self.kinds - CONTAINERS - {tuple})
        self._deeper = KeptContents(inputs)
        if unusual:
            for value in values:
                if type(value) in unusual:
                    self._deeper.keep(value)
        unusual = _holding({*map(type, inner), *map(type, in_tuples)})
        if unusual:
            for item in chain(inner, in_tuples):
                if type(item) in unusual:
                    self._deeper.keep(item)
        # A tensor of two modules is the first one's.
        own = {
            id(tensor): (tensor, id(part)) for part in reversed(parts) for tensor in kept_by(part)
        }
        self.owners = {key: owner for key, (_, owner) in own.items()}
        self.places = KeptPlaces(chain(tensors, (tensor for tensor, _ in own.values())))

    def restore(self) -> None:
        """Put everything back."""
        values = chain.from_iterable(map(dict.values, self._dicts))
        sizes = [*map(len, self._dicts)]
        names = map(is_, chain.from_iterable(self._dicts), chain.from_iterable(self._saved))
        if sizes != self._sizes or not all(names) or not all(map(is_, values, self._values)):
            for now, saved in zip(self._dicts, self._saved, strict=True):
                if not same_dict(now, saved):
                    for name in [name for name in now if name not in saved]:
                        del now[name]
                    now.update(saved)
        if [*map(len, self._containers)] != self._lengths:
            filled = {id(container) for container in self._filled}
            for container in self._containers:
                if container and id(container) not in filled:
                    container.clear()
        items = chain.from_iterable(map(_items_of, self._filled))
        fillings = [*map(len, self._filled)]
        if fillings != self._fillings or not all(map(is_, items, self._items)):
            for container, contents in zip(self._filled, self._contents, strict=True):
                refill(container, contents)
        self._deeper.restore()
        self.places.restore()


def _items_of(container: Any) -> Iterable[Any]:
    return chain(container, container.values()) if isinstance(container, dict) else container


def _holding(kinds: Iterable[type]) -> set[type]:
    """Return those types that may hold something: no atoms, no tensors, no modules."""
    import torch

    aside = (torch.Tensor, torch.nn.Module)
    return {kind for kind in kinds if kind not in ATOM_TYPES and not issubclass(kind, aside)}
