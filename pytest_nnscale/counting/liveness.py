"""Live bytes over a run: their peak, and who holds what of it.

Counts: every tensor storage that an operator takes or returns, once, by identity; views add
nothing. What existed before the run counts throughout, what is made inside counts from the
operator that made it until it is freed. Meta tensors count with their nominal size, sparse ones by
their parts. Not: kernels' private workspaces, allocator caches, objects that hold no tensor.

Births and deaths are only noted while the run lasts, in their order; their sum is taken afterwards.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate, chain
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

Kind = Literal["weights", "inputs", "activations", "gradients", "optimizer"]
# Of all that is held: parameters and buffers of modules; what else was there before the run; and
# what was made outside backward passes, in them, and in the step of an optimiser.
KINDS: tuple[Kind, ...] = ("weights", "inputs", "activations", "gradients", "optimizer")

_MANY = 1 << 16  # events are summed when there are this many, so that a long run keeps few


class Holder(Protocol):
    """Whom bytes are booked on: a module, by its id, and the kind of thing they are."""

    owner: int
    kind: Kind


class MadeBy:
    """The holder of all that one module made of one kind."""

    __slots__ = ("kind", "owner")

    def __init__(self, owner: int, kind: Kind) -> None:
        self.owner, self.kind = owner, kind


class Lifeline:
    """Bytes that a tensor without storage stands for; they are freed when it is."""

    __slots__ = ("holder", "nbytes", "note")

    def __init__(self, note: Callable[[tuple[Holder, int]], None], holder: Holder, nbytes: int):
        self.note, self.holder, self.nbytes = note, holder, nbytes
        note((holder, nbytes))

    def __del__(self) -> None:
        self.note((self.holder, -self.nbytes))


class _Storage:
    """One real storage: its bytes, whom they are booked on, and whether it was made inside."""

    __slots__ = ("inside", "kind", "nbytes", "owner", "reference")

    def __init__(self, nbytes: int, owner: int, kind: Kind, *, inside: bool) -> None:
        self.nbytes, self.owner, self.kind, self.inside = nbytes, owner, kind, inside
        self.reference: Callable[[], Any] = lambda: None


class Liveness:
    """Follows the bytes of tensor storages; owners are whatever ints the caller uses."""

    def __init__(self) -> None:
        self.events: list[tuple[Holder, int]] = []  # not summed up yet
        self.note = self.events.append
        self._before: dict[Holder, int] = {}
        self._storages: dict[int, _Storage] = {}
        self._lasting: set[int] = set()  # of `weights`, by their identity
        self._live = self._inside_peak = 0
        self._held: dict[Holder, int] = {}
        self._at_inside_peak: dict[Holder, int] = {}

    @property
    def peak(self) -> int:
        """The most bytes that were alive so far."""
        self._sum_up()
        return self._inside_peak + sum(self._before.values())

    @property
    def at_peak(self) -> Mapping[tuple[int, Kind], int]:
        """Who held them then: bytes by owner and kind."""
        self._sum_up()
        found: dict[tuple[int, Kind], int] = {}
        # What existed before was alive at the peak, also if it was first seen later.
        for part in (self._before, self._at_inside_peak):
            for holder, nbytes in part.items():
                key = (holder.owner, holder.kind)
                found[key] = found.get(key, 0) + nbytes
        return found

    def existed(self, tensor: Tensor, owner: int, kind: Kind = "inputs") -> None:
        """Book a tensor that was there before the run; one made inside stays that."""
        for storage, key, nbytes in _storages(tensor):
            if key in self._lasting:
                continue
            known = self._known(storage, key, nbytes)
            if known is None:
                known = self._hold(storage, key, nbytes, owner, kind, inside=False)
                self._before[known] = nbytes
            elif known.owner == 0 and owner != 0:
                known.owner, known.kind = owner, kind

    def weights(self, storages: Iterable[Any], keys: Iterable[int], owners: Iterable[int]) -> None:
        """Book storages that modules keep and that outlive the run: as `existed` does, at once."""
        held: dict[int, int] = {}
        lasting, followed = self._lasting, self._storages
        for storage, key, owner in zip(storages, keys, owners, strict=True):
            if key not in lasting and key not in followed:
                lasting.add(key)
                held[owner] = held.get(owner, 0) + storage.nbytes()
        self._before.update((MadeBy(owner, "weights"), nbytes) for owner, nbytes in held.items())

    def keeps(self, nbytes: int, owner: int) -> None:
        """Book bytes of weights that are there throughout, and have no storage to follow."""
        self._before[MadeBy(owner, "weights")] = nbytes

    def made(self, tensor: Tensor, owner: int, kind: Kind = "activations") -> None:
        """Book a tensor that an operator returned."""
        for storage, key, nbytes in _storages(tensor):
            if key not in self._lasting and self._known(storage, key, nbytes) is None:
                self.note((self._hold(storage, key, nbytes, owner, kind, inside=True), nbytes))

    def is_inside(self, tensor: Tensor) -> bool:
        """Tell whether a tensor's storage was made during the run."""
        for storage, key, nbytes in _storages(tensor):
            known = self._known(storage, key, nbytes)
            if known is None or not known.inside:
                return False
        return True

    def left_over(self) -> int:
        """Return the bytes that tensors without storage still stand for."""
        held = chain(self._held.items(), self.events[:])
        return sum(nbytes for holder, nbytes in held if type(holder) is MadeBy)

    def settle(self) -> None:
        """Keep the notes short; to be called now and then."""
        if len(self.events) > _MANY:
            self._sum_up()

    def close(self) -> None:
        """Stop following."""
        for storage in self._storages.values():
            storage.reference = lambda: None
        self._storages.clear()

    def _hold(
        self, storage: Any, key: int, nbytes: int, owner: int, kind: Kind, *, inside: bool
    ) -> _Storage:
        found = _Storage(nbytes, owner, kind, inside=inside)
        if not inside:  # counts throughout, whenever it dies
            found.reference = weakref.ref(storage)
            self._storages[key] = found
            return found

        def died(_: object) -> None:  # at any time, in any thread
            self.note((found, -found.nbytes))
            if self._storages.get(key) is found:
                del self._storages[key]

        found.reference = weakref.ref(storage, died)
        self._storages[key] = found
        return found

    def _known(self, storage: Any, key: int, nbytes: int) -> _Storage | None:
        known = self._storages.get(key)
        if known is None or known.reference() is not storage:  # the address of one that died
            return None
        if known.nbytes != nbytes:
            grown = nbytes - known.nbytes
            known.nbytes = nbytes
            if known.inside:
                self.note((known, grown))
            else:
                self._before[known] += grown
        return known

    def _sum_up(self) -> None:
        events = self.events[:]
        del self.events[: len(events)]
        if not events:
            return
        sums = [*accumulate((change for _, change in events), initial=self._live)]
        highest = max(sums)
        # The first of several as high; the sum before all events is of the time before.
        place = sums.index(highest) if highest > self._inside_peak else 0
        self._live, self._inside_peak = sums[-1], max(highest, self._inside_peak)
        for holder, change in events[:place]:
            self._hold_more(holder, change)
        if place:
            self._at_inside_peak = self._held.copy()
        for holder, change in events[place:]:
            self._hold_more(holder, change)

    def _hold_more(self, holder: Holder, change: int) -> None:
        held = self._held.get(holder, 0) + change
        if held:
            self._held[holder] = held
        else:
            self._held.pop(holder, None)


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
