"""Modules and inputs as they were, for a run that writes no values: a trace.

What is compared is compared for all modules at once, in a few passes of C, since a trace of a small
model takes no longer than asking each of its modules for each of its attributes would.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
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
        self._attributes = [*map(len, self._dicts)], [*map(id, values)]
        self.kinds = {*map(type, values)}
        self._containers = [value for value in values if type(value) in CONTAINERS]
        self._lengths = [*map(len, self._containers)]
        self._filled = [container for container in self._containers if container]
        self._contents = [container.copy() for container in self._filled]
        inner = [*chain.from_iterable(map(_items_of, self._filled))]
        self._items = [*map(len, self._filled)], [*map(id, inner)]
        inner += chain.from_iterable(value for value in values if type(value) is tuple)
        unusual = _holding(self.kinds - CONTAINERS - {tuple})
        self._deeper = KeptContents(inputs)
        for item in (value for value in values if type(value) in unusual) if unusual else ():
            self._deeper.keep(item)
        unusual = _holding({*map(type, inner)})
        for item in (value for value in inner if type(value) in unusual) if unusual else ():
            self._deeper.keep(item)
        own = {id(tensor): (tensor, id(part)) for part in parts for tensor in kept_by(part)}
        self.owners = {key: owner for key, (_, owner) in own.items()}
        self.places = KeptPlaces(chain(tensors, (tensor for tensor, _ in own.values())))

    def restore(self) -> None:
        """Put everything back."""
        values = chain.from_iterable(map(dict.values, self._dicts))
        # What was replaced lives on in the copies, so that no identity is taken twice.
        if ([*map(len, self._dicts)], [*map(id, values)]) != self._attributes:
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
        if ([*map(len, self._filled)], [*map(id, items)]) != self._items:
            for container, contents in zip(self._filled, self._contents, strict=True):
                refill(container, contents)
        self._deeper.restore()
        self.places.restore()


def _items_of(container: Any) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


def _holding(kinds: Iterable[type]) -> set[type]:
    """Return those types that may hold something: no atoms, no tensors, no modules."""
    import torch

    aside = (torch.Tensor, torch.nn.Module)
    return {kind for kind in kinds if kind not in ATOM_TYPES and not issubclass(kind, aside)}
