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

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_nnscale.counting.stored import Inventory, Stored, take_inventory, why_incomplete
from pytest_nnscale.measurement import Measurement, Metric, Share
from pytest_nnscale.meters.pruned import count_nonzero, masks_of
from pytest_nnscale.naming import add_up, joint_name

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
    counted = [
        kept
        for kept in inventory.tensors
        if kept.kind in ("parameter", "packed") and (kept.tensor.requires_grad or not trainable)
    ]
    subject = joint_name(modules)
    valueless = [kept.path for kept in counted if kept.tensor.device.type == "meta"]
    if nonzero and (valueless or any(tensor.device.type == "meta" for tensor in elsewhere)):
        return Measurement.nothing(
            Metric.PARAMS,
            reason=f"{(valueless or ['a parameter'])[0] or subject} is on meta and has no values",
            remedy="measure a model with weights, or drop nonzero=True",
            subject=subject,
        )
    masks = masks_of(modules) if nonzero else {}

    def amount(tensor: torch.Tensor) -> int:
        return count_nonzero(tensor, masks.get(id(tensor))) if nonzero else tensor.numel()

    amounts = [(kept, amount(kept.tensor)) for kept in counted]
    total = sum(number for _, number in amounts)
    shares = share_out(amounts, inventory)
    uninitialised = [kept.path for kept in counted if kept.lazy]
    if uninitialised:
        return Measurement.nothing(
            Metric.PARAMS,
            reason=f"{uninitialised[0]} is lazy and has no shape yet",
            remedy="call the model once before it is measured",
            subject=subject,
        )
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


def share_out(amounts: Sequence[tuple[Stored, int]], inventory: Inventory) -> tuple[Share, ...]:
    """Give each module its own amount and that of all below it; the root's path is empty."""
    own: dict[str, list[int]] = {}
    for kept, amount in amounts:
        mine = own.get(kept.path)
        if mine is None:
            mine = own[kept.path] = [0]
        mine[0] += amount
    if not own:
        return ()
    types, nothing = inventory.types, (0,)
    totals = add_up(own, types, 1)
    return tuple(
        Share(path, types.get(path, ""), own.get(path, nothing)[0], total)
        for path, (total,) in totals.items()
    )
