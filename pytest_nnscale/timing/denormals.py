"""Numbers so small that processors compute with them many times slower than with others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def are_flushed() -> bool:
    """Tell whether this thread takes denormal numbers for zero, as torch.set_flush_denormal asks."""
    import torch

    least = torch.tensor([torch.finfo(torch.float32).tiny])
    return bool((least / 2 * 2).item() == 0.0)


def any_denormal(tensors: Iterable[torch.Tensor]) -> bool:
    """Tell whether any of some dense tensors on the CPU holds a denormal number."""
    return any(map(_holds_denormal, tensors))


def _holds_denormal(tensor: torch.Tensor) -> bool:
    import torch

    plain = tensor.device.type == "cpu" and tensor.layout == torch.strided
    if not plain or tensor.is_quantized or tensor.dtype not in (torch.float32, torch.float64):
        return False
    amounts = tensor.detach().abs()
    return bool(((amounts > 0) & (amounts < torch.finfo(tensor.dtype).tiny)).any())
