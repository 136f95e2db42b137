"""Numbers so small that processors compute with them many times slower than with others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_nnscale.workload import tensors_in

if TYPE_CHECKING:
    import torch


def are_flushed() -> bool:
    """Tell whether this thread takes denormal numbers for zero, as torch.set_flush_denormal asks."""
    import torch

    # A default device that somebody has set may be one that is not asked about.
    least = torch.tensor([torch.finfo(torch.float32).tiny], device="cpu")
    return bool((least / 2 * 2).item() == 0.0)


def any_denormal(output: Any) -> bool | None:
    """Tell whether a call's output holds a denormal number; None where there is nothing to look at.

    Looked at are dense tensors on the CPU. It never raises: a tensor of another kind that cannot be
    looked at says nothing of the call.
    """
    try:
        looked = [_holds_denormal(tensor) for tensor in tensors_in(output) if _is_plain(tensor)]
    except Exception:
        return None
    return any(looked) if looked else None


def _is_plain(tensor: torch.Tensor) -> bool:
    import torch

    dense = tensor.device.type == "cpu" and tensor.layout == torch.strided
    odd = tensor.is_quantized or tensor.is_nested
    return dense and not odd and tensor.dtype in (torch.float32, torch.float64)


def _holds_denormal(tensor: torch.Tensor) -> bool:
    import torch

    amounts = tensor.detach().abs()
    return bool(((amounts > 0) & (amounts < torch.finfo(tensor.dtype).tiny)).any())
