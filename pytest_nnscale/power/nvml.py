"""NVIDIA GPUs through NVML: which one CUDA means, and what the driver's errors become."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pytest_nnscale.errors import CannotMeasure


def open_gpu(device: str = "cuda") -> Any:
    """Start NVML and return its handle of the GPU that CUDA calls `device`; its errors pass through."""
    import pynvml

    pynvml.nvmlInit()
    return _handle(_index(device))


def _index(device: str) -> int:
    _, colon, index = device.partition(":")
    if colon:
        return int(index)
    import torch

    return torch.cuda.current_device() if torch.cuda.is_available() else 0


def _handle(index: int) -> Any:
    """Find the GPU that CUDA calls `index`: NVML counts in the order of the buses, CUDA may not.

    Torch knows its UUID, which both go by. Without torch's word, and where a slice of a GPU is named,
    whose own UUID torch may not tell, CUDA_VISIBLE_DEVICES renumbers.
    """
    import pynvml

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    uuid = "" if visible and "MIG-" in visible else _uuid(index)
    for kind in ("GPU", "MIG"):
        with suppress(pynvml.NVMLError):  # a slice of one, or a driver that is asked again below
            if uuid:
                return pynvml.nvmlDeviceGetHandleByUUID(f"{kind}-{uuid}")
    if visible is None:
        return pynvml.nvmlDeviceGetHandleByIndex(index)
    names = [name.strip() for name in visible.split(",") if name.strip()]
    if index >= len(names):
        raise CannotMeasure(
            f"cuda:{index} is not among CUDA_VISIBLE_DEVICES={visible}",
            remedy="measure on a GPU that is visible",
        )
    name = names[index]
    if name.isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(name))
    return pynvml.nvmlDeviceGetHandleByUUID(name)


def _uuid(index: int) -> str:
    """Return the UUID of a GPU, or "" where torch does not tell it."""
    import torch

    if not torch.cuda.is_available():
        return ""
    with suppress(Exception):
        return str(torch.cuda.get_device_properties(index).uuid)
    return ""


@contextmanager
def vendor_errors(what_fails: str, *, remedy: str) -> Iterator[None]:
    """Map what NVML raises, once: to CannotMeasure, in NVML's own words."""
    import pynvml

    try:
        yield
    except pynvml.NVMLError as error:
        raise CannotMeasure(f"{what_fails}: {error}", remedy=remedy) from error
