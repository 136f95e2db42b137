"""What pruning leaves of a parameter: the values that are not zero, under its mask."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_nnscale.naming import parts_of

if TYPE_CHECKING:
    import torch


def masks_of(modules: Sequence[torch.nn.Module]) -> dict[int, torch.Tensor]:
    """Return the masks of torch.nn.utils.prune by the id of the parameter that they cover.

    Pruning keeps a weight as `weight_orig`, dense, beside its buffer `weight_mask`.
    """
    masks = {}
    for module in itertools.chain.from_iterable(map(parts_of, modules)):
        for name, parameter in module._parameters.items():
            mask = module._buffers.get(f"{name.removesuffix('_orig')}_mask")
            if parameter is not None and mask is not None and name.endswith("_orig"):
                masks[id(parameter)] = mask
    return masks


def count_nonzero(tensor: torch.Tensor, mask: torch.Tensor | None = None) -> int:
    """Count the values of a tensor that are not zero; of a quantised one those it stands for."""
    import torch

    with torch.no_grad():
        if tensor.is_quantized:
            tensor = tensor.dequantize()
        if tensor.layout is torch.sparse_coo:
            tensor = tensor.coalesce().values()
        elif tensor.layout is not torch.strided:
            tensor = tensor.values()
        elif mask is not None:
            tensor = tensor * mask
        return int(torch.count_nonzero(tensor))
