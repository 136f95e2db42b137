"""Live bytes over a run: their peak, and who holds it.

Counts: every tensor storage that an operator takes or returns, once, by identity; views add
nothing. What existed before the run counts throughout, what is made inside counts from the
operator that made it until it is freed. Meta tensors count with their nominal size, sparse ones by
their parts. Not: kernels' private workspaces, allocator caches, objects that hold no tensor.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


class _Holding(weakref.ref[Any]):
    """A weak reference to one storage, with its bytes, who made it, and when."""

    __slots__ = ("buried", "inside", "key", "nbytes", "owner")
    key: int
    nbytes: int
    owner: int
    inside: bool
    buried: bool


class Liveness:
    """Follows the bytes of tensor storages; owners are whatever ints the caller uses."""

    def __init__(self) -> None:
        self.live = 0
        self.peak = 0
        self.at_peak: dict[int, int] = {}
        self._by_owner: dict[int, int] = {}
        self._holdings: dict[int, _Holding] = {}
        # Storages die at any time, in any thread: what died is only noted, and booked later.
        self._died: deque[_Holding] = deque()

    def existed(self, tensor: Tensor, owner: int) -> None:
        """Book a tensor that was there before the run; one made inside stays that."""
        for storage, key, nbytes in _storages(tensor):
            holding = self._known(storage, key, nbytes)
            if holding is None:
                self._hold(storage, key, nbytes, owner, inside=False)
                # It was alive at the peak, too, before it was first seen.
                self.peak += nbytes
                self.at_peak[owner] = self.at_peak.get(owner, 0) + nbytes
            elif holding.owner == 0 and owner != 0:
                self._book(0, -holding.nbytes)
                self._book(owner, holding.nbytes)
                if not holding.inside:
                    self.at_peak[0] -= holding.nbytes
                    self.at_peak[owner] = self.at_peak.get(owner, 0) + holding.nbytes
                holding.owner = owner

    def made(self, tensor: Tensor, owner: int) -> None:
        """Book a tensor that an operator returned."""
        for storage, key, nbytes in _storages(tensor):
            if self._known(storage, key, nbytes) is None:
                self._hold(storage, key, nbytes, owner, inside=True)

    def is_inside(self, tensor: Tensor) -> bool:
        """Tell whether a tensor's storage was made during the run."""
        for storage, key, nbytes in _storages(tensor):
            holding = self._known(storage, key, nbytes)
            if holding is None or not holding.inside:
                return False
        return True

    def settle(self) -> None:
        """Take the present as the peak if it is one; to be called after each operator."""
        self._bury()
        if self.live > self.peak:
            self.peak = self.live
            self.at_peak = self._by_owner.copy()

    def close(self) -> None:
        """Stop following."""
        self._holdings.clear()

    def _hold(self, storage: Any, key: int, nbytes: int, owner: int, *, inside: bool) -> None:
        holding = _Holding(storage, self._died.append)
        holding.key, holding.nbytes, holding.owner = key, nbytes, owner
        holding.inside, holding.buried = inside, False
        self._holdings[key] = holding
        self._book(owner, nbytes)

    def _known(self, storage: Any, key: int, nbytes: int) -> _Holding | None:
        holding = self._holdings.get(key)
        if holding is None:
            return None
        if holding() is not storage:  # the address of one that died
            self._forget(holding)
            return None
        if holding.nbytes != nbytes:
            self._book(holding.owner, nbytes - holding.nbytes)
            holding.nbytes = nbytes
        return holding

    def _bury(self) -> None:
        while self._died:
            self._forget(self._died.popleft())

    def _forget(self, holding: _Holding) -> None:
        if holding.buried:
            return
        holding.buried = True
        if self._holdings.get(holding.key) is holding:
            del self._holdings[holding.key]
        if holding.inside:
            self._book(holding.owner, -holding.nbytes)

    def _book(self, owner: int, nbytes: int) -> None:
        self.live += nbytes
        self._by_owner[owner] = self._by_owner.get(owner, 0) + nbytes


_PARTS: dict[torch.layout, tuple[Callable[[Tensor], Tensor], ...]] = {
    torch.sparse_coo: (Tensor._indices, Tensor._values),
    torch.sparse_csr: (Tensor.crow_indices, Tensor.col_indices, Tensor.values),
    torch.sparse_bsr: (Tensor.crow_indices, Tensor.col_indices, Tensor.values),
    torch.sparse_csc: (Tensor.ccol_indices, Tensor.row_indices, Tensor.values),
    torch.sparse_bsc: (Tensor.ccol_indices, Tensor.row_indices, Tensor.values),
}


def _storages(tensor: Tensor) -> Iterator[tuple[Any, int, int]]:
    """Give what a tensor is kept in: the object whose life counts, its identity, its bytes."""
    try:
        if tensor.layout in _PARTS:
            for part in _PARTS[tensor.layout]:
                yield from _storages(part(tensor))
            return
        storage = tensor.untyped_storage()
        yield storage, storage._cdata, storage.nbytes()
    except (RuntimeError, NotImplementedError, ValueError):
        # Opaque tensors (mkldnn) have no storage, uninitialised parameters no shape yet.
        if type(tensor) is Tensor and tensor.is_mkldnn:
            yield tensor, id(tensor), tensor.numel() * tensor.element_size()
