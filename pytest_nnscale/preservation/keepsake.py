"""Modules, tensors and inputs as they were at one moment, and the block that ends as it began."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_nnscale.naming import parts_of
from pytest_nnscale.preservation.contents import KeptAttributes, KeptContents
from pytest_nnscale.preservation.generators import Generators
from pytest_nnscale.preservation.tensors import KeptTensor, is_uninitialised

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def preserved(
    modules: Iterable[nn.Module], tensors: Iterable[Tensor] = (), *, inputs: object = ()
) -> Iterator[None]:
    """Put modules, tensors, inputs, random numbers and grad mode back on exit, also on raise.

    Buffers and `tensors` are copied up front, of nested `inputs` the containers.
    """
    generators = Generators()
    keepsake = Keepsake(modules, tensors, inputs=inputs)
    try:
        yield
    finally:
        keepsake.restore()
        generators.restore()


class Keepsake:
    """Modules and tensors as they were when it was made."""

    def __init__(
        self,
        modules: Iterable[nn.Module],
        tensors: Iterable[Tensor] = (),
        *,
        inputs: object = (),
    ) -> None:
        import torch

        parts = {id(part): part for module in modules for part in parts_of(module)}
        self._contents = KeptContents(inputs)
        self._attributes = [KeptAttributes(part, self._contents) for part in parts.values()]
        self._tensors: dict[int, KeptTensor] = {}
        with torch.no_grad():
            for tensor in tensors:
                self._keep(tensor, copy=True)
            for part in parts.values():
                for buffer in part.buffers(recurse=False):
                    self._keep(buffer, copy=True)
                for parameter in part.parameters(recurse=False):
                    self._keep(parameter, copy=False)

    def _keep(self, tensor: Tensor, *, copy: bool) -> None:
        if id(tensor) not in self._tensors and not is_uninitialised(tensor):
            self._tensors[id(tensor)] = KeptTensor(tensor, copy=copy)

    def restore(self) -> None:
        """Put everything back."""
        import torch

        with torch.no_grad():
            for attributes in self._attributes:
                attributes.restore()
            self._contents.restore()
            for tensor in self._tensors.values():
                tensor.restore()
