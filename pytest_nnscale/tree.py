"""The modules of some models as a tree: each once, with its path, and sums over all below it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from operator import is_, methodcaller
from typing import TYPE_CHECKING, NamedTuple

from pytest_nnscale.naming import class_name, is_shell, without_shell

if TYPE_CHECKING:
    import torch
    from torch import nn


_values = methodcaller("values")  # those of a scripted module are in no dict


class Kept(NamedTuple):
    """The parameters and buffers of a tree, each once: of which row, and which are parameters."""

    tensors: list[torch.Tensor]
    rows: list[int]
    are_parameters: list[bool]


class ModuleTree:
    """Modules in the order of `named_modules`, a shared one at its first path.

    What torch.compile put around one is none of them, but in `shells`. Row 0 is the whole, with the
    path "": the only root itself; of several roots, or none, no module, and these go by their
    classes, a second of a class by "Class#2". `above` has for each row that of the module above it,
    which comes earlier; `row_of` finds rows by the ids of modules.
    """

    def __init__(self, roots: Sequence[nn.Module]) -> None:
        self.roots = tuple(roots)
        self.modules: list[nn.Module] = []
        self.shells: list[nn.Module] = []
        self.paths: list[str] = []
        self.types: list[str] = []
        self.above: list[int] = []
        self.row_of: dict[int, int] = {}
        self._names: dict[type, str | None] = {}
        several = len(self.roots) != 1
        if several:
            self._add("", "", 0)
        taken: dict[str, int] = {}
        for root in self.roots:
            kind = class_name(without_shell(root)) if several else ""
            taken[kind] = taken.get(kind, 0) + 1
            self._walk(kind if taken[kind] == 1 else f"{kind}#{taken[kind]}", root)
        self._below = [module._modules for module in chain(self.modules, self.shells)]
        self._registered = [*chain.from_iterable(map(_values, self._below))]
        self._counts = [*map(len, self._below)]

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.paths)

    def _add(self, path: str, kind: str, above: int) -> int:
        self.paths.append(path)
        self.types.append(kind)
        self.above.append(above)
        return len(self.paths) - 1

    def _walk(self, path: str, root: nn.Module) -> None:
        row_of, names = self.row_of, self._names
        paths, types, above, modules = self.paths, self.types, self.above, self.modules
        stack: list[tuple[str, nn.Module, int]] = [(path, root, 0)]
        while stack:
            path, module, row = stack.pop()
            if id(module) in row_of:
                continue
            kind = type(module)
            name = names.get(kind)
            if name is None:
                if is_shell(module):
                    self.shells.append(module)
                    stack.append((path, without_shell(module), row))
                    continue
                name = class_name(module)
                if not hasattr(kind, "original_name"):  # else every instance has its own
                    names[kind] = name
            above.append(row)
            row = row_of[id(module)] = len(paths)
            paths.append(path)
            types.append(name)
            modules.append(module)
            below = module._modules
            if below:
                stem = f"{path}." if path else ""
                parts = [
                    (stem + each, part, row) for each, part in below.items() if part is not None
                ]
                parts.reverse()
                stack += parts

    def hang(self, module: nn.Module, above: int) -> int:
        """Add a module that nobody registered below a row, by its type; return its row."""
        kind = class_name(module)
        path = f"{self.paths[above]}.{kind}" if self.paths[above] else kind
        row = self.paths.index(path) if path in self.paths else self._add(path, kind, above)
        self.row_of[id(module)] = row
        return row

    def holds(self) -> bool:
        """Tell whether the same modules are registered in each other, by the same names or not."""
        now = chain.from_iterable(map(_values, self._below))
        return [*map(len, self._below)] == self._counts and all(map(is_, now, self._registered))

    @cached_property
    def attribute_types(self) -> set[type]:
        """The types of all attributes of all modules."""
        return {*map(type, chain.from_iterable(map(_values, map(vars, self.modules))))}

    @cached_property
    def kept(self) -> Kept:
        """The parameters and buffers of all modules, parameters first in each."""
        found = Kept([], [], [])
        seen: set[int] = set()
        first = len(self.paths) - len(self.modules)  # row 0 may be no module
        for row, module in enumerate(self.modules, first):
            for tensors, are in ((module._parameters, True), (module._buffers, False)):
                if tensors:
                    for tensor in tensors.values():
                        if tensor is not None and id(tensor) not in seen:
                            seen.add(id(tensor))
                            found.tensors.append(tensor)
                            found.rows.append(row)
                            found.are_parameters.append(are)
        return found

    @property
    def owners(self) -> list[nn.Module]:
        """The module that keeps each of the `kept` tensors."""
        first = len(self.paths) - len(self.modules)  # row 0 may be no module
        modules = self.modules
        return [modules[row - first] for row in self.kept.rows]

    def add_up(self, own: Sequence[int]) -> list[int]:
        """Sum a number of each row over the row and all below it."""
        sums, above = [*own], self.above
        for row in range(len(sums) - 1, 0, -1):
            if sums[row]:
                sums[above[row]] += sums[row]
        return sums

    def with_above(self, rows: Iterable[int]) -> list[int]:
        """Return some rows, those above them and row 0, in their order."""
        present = bytearray(len(self.paths))
        above = self.above
        present[0] = 1
        for row in rows:
            while not present[row]:
                present[row] = 1
                row = above[row]
        return [row for row, is_there in enumerate(present) if is_there]
