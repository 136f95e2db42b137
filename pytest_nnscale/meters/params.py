"""Parameters.

Counts: every parameter of the models, a shared one once; weights that a quantised or frozen module
keeps out of `parameters()`'s sight.
Does not count: buffers (running statistics, masks), scales and zero points of quantisation, plain
tensor attributes.
Error sources: none; a packed weight of a kind this file cannot open makes the count a lower bound,
as do parameters that ran and belong to no model seen.
Reference: torch.nn.Module.parameters, torchvision's `weights.meta["num_params"]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress
from typing import TYPE_CHECKING

from pytest_nnscale.counting.stored import Inventory, take_inventory, why_incomplete
from pytest_nnscale.measurement import Deferred, Measurement, Metric, Share
from pytest_nnscale.meters.pruned import count_nonzero, masks_of
from pytest_nnscale.naming import joint_name
from pytest_nnscale.tree import ModuleTree

if TYPE_CHECKING:
    import torch


def measure_params(
    modules: Sequence[torch.nn.Module],
    *,
    trainable: bool = False,
    nonzero: bool = False,
    elsewhere: Sequence[torch.Tensor] = (),
    inventory: Inventory | None = None,
) -> Measurement:
    """Count the parameters of some models together; `trainable` those that need a gradient.

    `nonzero` counts the values that are not zero, under the masks of torch.nn.utils.prune.
    `elsewhere` are parameters that ran too and belong to none of the models. `inventory` is
    that of the models, where it was taken already.
    """
    inventory = inventory or take_inventory(modules)
    tensors, subject = inventory.tensors, joint_name(modules)
    counted = [*compress(range(len(tensors)), inventory.are_parameters)]
    if trainable:
        counted = [place for place in counted if tensors[place].requires_grad]
    uninitialised = [place for place in inventory.lazy if place in counted]
    if uninitialised:
        return Measurement.nothing(
            Metric.PARAMS,
            reason=f"{inventory.path_of(uninitialised[0])} is lazy and has no shape yet",
            remedy="call the model once before it is measured",
            subject=subject,
        )
    amount = _amount(modules, nonzero=nonzero)
    if nonzero:
        valueless = [
            inventory.path_of(place) for place in counted if tensors[place].device.type == "meta"
        ]
        if valueless or any(tensor.device.type == "meta" for tensor in elsewhere):
            return Measurement.nothing(
                Metric.PARAMS,
                reason=f"{(valueless or ['a parameter'])[0] or subject} is on meta and has no values",
                remedy="measure a model with weights, or drop nonzero=True",
                subject=subject,
            )
    amounts = [*map(amount, map(tensors.__getitem__, counted))]
    total = sum(amounts)
    rows = [*map(inventory.rows.__getitem__, counted)]
    shares = Deferred(lambda: share_out(rows, amounts, inventory.tree))
    strays = [tensor for tensor in elsewhere if tensor.requires_grad or not trainable]
    if strays or inventory.unopened:
        reason, remedy = why_incomplete(inventory.unopened, strays)
        return Measurement.at_least(
            Metric.PARAMS,
            total + sum(map(amount, strays)),
            reason=reason,
            remedy=remedy,
            method="state",
            subject=subject,
            shares=shares,
        )
    return Measurement.exact(Metric.PARAMS, total, method="state", subject=subject, shares=shares)


def _amount(modules: Sequence[torch.nn.Module], *, nonzero: bool) -> Callable[[torch.Tensor], int]:
    if not nonzero:
        import torch

        return torch.Tensor.numel
    masks = masks_of(modules)
    return lambda tensor: count_nonzero(tensor, masks.get(id(tensor)))


def share_out(rows: Sequence[int], amounts: Sequence[int], tree: ModuleTree) -> tuple[Share, ...]:
    """Give each module its own amount and that of all below it; the root's path is empty.

    `rows` are those of the modules that have some amounts.
    """
    if not rows:
        return ()
    own = [0] * len(tree)
    for row, amount in zip(rows, amounts, strict=True):
        own[row] += amount
    shares = [*zip(tree.paths, tree.types, own, tree.add_up(own), strict=True)]
    return tuple(Share(*shares[row]) for row in tree.with_above(rows))
