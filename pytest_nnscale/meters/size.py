"""Size: the bytes that a model's parameters and buffers take as stored.

Counts: each storage once at its own dtype, so tied weights once and half precision at half;
packed quantised weights as packed, frozen ones too; of sparse tensors values and indices.
Does not count: optimiser state, activations, Python objects, the file format of a checkpoint.
Error sources: none; a pack that cannot be opened makes the count a lower bound, as do parameters
that ran and belong to no model seen. Weights in mkldnn's layout count without its padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any

from pytest_nnscale.counting.stored import Inventory, take_inventory, why_incomplete
from pytest_nnscale.measurement import Deferred, Measurement, Metric
from pytest_nnscale.meters.params import share_out
from pytest_nnscale.naming import joint_name

if TYPE_CHECKING:
    import torch


def measure_size(
    modules: Sequence[torch.nn.Module],
    *,
    elsewhere: Sequence[torch.Tensor] = (),
    inventory: Inventory | None = None,
) -> Measurement:
    """Sum the stored bytes of some models' parameters and buffers, shared storage once.

    `elsewhere` are parameters that ran too and belong to none of the models. `inventory` is
    that of the models, where it was taken already.
    """
    inventory = inventory or take_inventory(modules)
    unopened, subject = inventory.unopened, joint_name(modules)
    if inventory.lazy:
        return Measurement.nothing(
            Metric.SIZE,
            reason=f"{inventory.path_of(inventory.lazy[0])} is lazy and has no shape yet",
            remedy="call the model once before it is measured",
            subject=subject,
        )
    seen: set[int] = set()
    amounts = _each_once(inventory.tensors, seen)
    total = sum(amounts)
    stored = [*compress(inventory.rows, amounts)], [*filter(None, amounts)]
    shares = Deferred(lambda: share_out(*stored, inventory.tree))
    strays = sum(_bytes_of(tensor, seen) for tensor in elsewhere)
    if unopened or elsewhere:
        reason, remedy = why_incomplete(unopened, elsewhere)
        return Measurement.at_least(
            Metric.SIZE,
            total + strays,
            reason=reason,
            remedy=remedy,
            method="state",
            subject=subject,
            shares=shares,
        )
    return Measurement.exact(Metric.SIZE, total, method="state", subject=subject, shares=shares)


def _each_once(tensors: Sequence[torch.Tensor], seen: set[int]) -> list[int]:
    """Return for each tensor the bytes of its storages that none before it has."""
    import torch

    of: Any = torch.Tensor
    plain = {*map(type, tensors)} <= {torch.Tensor, torch.nn.Parameter}
    if plain and {*map(of.layout.__get__, tensors)} <= {torch.strided}:
        storages = [*map(of.untyped_storage, tensors)]
        keys = [storage._cdata for storage in storages]
        seen.update(keys)
        if len(seen) == len(keys):
            return [storage.nbytes() for storage in storages]
        seen.clear()
    return [_bytes_of(tensor, seen) for tensor in tensors]


def _bytes_of(tensor: torch.Tensor, seen: set[int]) -> int:
    """Sum the bytes of a tensor's storages that were not seen before."""
    import torch

    total = 0
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
    for part in (tensor,) if plain else _parts(tensor):
        if part.is_mkldnn:  # opaque: it has no storage to ask
            total += part.numel() * part.element_size()
            continue
        storage = part.untyped_storage()
        # A view kept as a parameter keeps its whole storage alive. On meta nothing is stored, and
        # storages are told apart all the same.
        if storage._cdata not in seen:
            seen.add(storage._cdata)
            total += storage.nbytes()
    return total


def _parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Take a tensor apart into dense ones: sparse layouts and wrapper subclasses have several."""
    import torch

    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is not None:
        names, _ = flatten()
        return [part for name in names for part in _parts(getattr(tensor, name))]
    return [tensor]
