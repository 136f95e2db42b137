"""Modules and inputs as they were, for a run that writes no values: a trace.

What is compared is compared for all modules at once, in a few passes of C, since a trace of a small
model takes no longer than asking each of its modules for each of its attributes would.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, compress, islice
from operator import is_
from typing import TYPE_CHECKING, Any

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

_SIZED = CONTAINERS | {tuple}


class Outline:
    """The attributes of modules, what these hold some levels deep, and where tensors lie.

    Without `versions` nothing can move their version counters. `kinds` are the types of all attributes, `places` has the tensors, each once.
    """

    def __init__(
        self,
        parts: Sequence[nn.Module] = (),
        tensors: Iterable[Tensor] = (),
        *,
        inputs: object = (),
        versions: bool = True,
    ) -> None:
        self._dicts: list[dict[str, Any]] = [vars(part) for part in parts]
        self._names, self._values = self._attributes()
        self._sizes = [*map(len, self._dicts)]
        types = [*map(type, self._values)]
        self.kinds = {*types}
        # Tuples among them, which stay as long as they are: most containers hold nothing.
        self._containers = [*compress(self._values, map(_SIZED.__contains__, types))]
        self._lengths = [*map(len, self._containers)]
        filled = [*compress(self._containers, self._lengths)]
        self._filled = [each for each in filled if type(each) is not tuple]
        self._contents = [container.copy() for container in self._filled]
        self._items, self._fillings = self._held()
        self._deeper = KeptContents(inputs)
        self._keep_deeper(self._values, self.kinds - _SIZED)
        in_tuples = [*chain.from_iterable(each for each in filled if type(each) is tuple)]
        for items in (self._items, in_tuples):
            self._keep_deeper(items, {*map(type, items)})
        self.places = KeptPlaces(tensors, versions=versions)

    def restore(self) -> None:
        """Put everything back."""
        names, values = self._attributes()
        same = [*map(len, self._dicts)] == self._sizes and names == self._names
        if not same or not all(map(is_, values, self._values)):
            self._put_back_attributes()
        if [*map(len, self._containers)] != self._lengths:
            for container, length in zip(self._containers, self._lengths, strict=True):
                if container and not length:
                    container.clear()
        items, fillings = self._held()
        if fillings != self._fillings or not all(map(is_, items, self._items)):
            for container, contents in zip(self._filled, self._contents, strict=True):
                refill(container, contents)
        self._deeper.restore()
        self.places.restore()

    def _attributes(self) -> tuple[list[str], list[Any]]:
        """Return the names and values of all modules' attributes, one after the other."""
        names = [*chain.from_iterable(self._dicts)]
        return names, [*chain.from_iterable(map(dict.values, self._dicts))]

    def _held(self) -> tuple[list[Any], list[int]]:
        """Return what is in all containers that had anything in them, and how much in each."""
        items = [*chain.from_iterable(map(_items_of, self._filled))]
        return items, [*map(len, self._filled)]

    def _keep_deeper(self, values: Sequence[Any], kinds: set[type]) -> None:
        unusual = _holding(kinds)
        if unusual:
            for value in values:
                if type(value) in unusual:
                    self._deeper.keep(value)

    def _put_back_attributes(self) -> None:
        pairs = zip(self._names, self._values, strict=True)
        for now, size in zip(self._dicts, self._sizes, strict=True):
            saved = dict(islice(pairs, size))
            if not same_dict(now, saved):
                for name in [name for name in now if name not in saved]:
                    del now[name]
                now.update(saved)


def _items_of(container: Any) -> Iterable[Any]:
    return chain(container, container.values()) if isinstance(container, dict) else container


def _holding(kinds: Iterable[type]) -> set[type]:
    """Return those types that may hold something: no atoms, no tensors, no modules."""
    import torch

    aside = (torch.Tensor, torch.nn.Module)
    return {kind for kind in kinds if kind not in ATOM_TYPES and not issubclass(kind, aside)}
