"""NVIDIA GPUs: the total energy counter that NVML serves (Volta and later), in millijoules."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pytest_nnscale.errors import CannotMeasure


@dataclass
class NvmlCounter:
    """The energy counter of one GPU."""

    handle: Any
    device: str
    name: str
    resolution_j: float = 1e-3
    resolution_s: float = 0.1  # the longest interval between two updates that is known of

    def read_j(self) -> float:
        """Return joules since the driver was loaded."""
        import pynvml

        with _vendor_errors():
            return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)) / 1000


def find_nvml(device: str = "cuda") -> tuple[NvmlCounter, ...]:
    """Open the counter of one visible GPU; "cuda" is the current one's."""
    import pynvml

    with _vendor_errors():
        pynvml.nvmlInit()
        handle = _handle(_index(device))
        name = pynvml.nvmlDeviceGetName(handle)
        # The first read tells whether this GPU has the counter at all.
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    return (NvmlCounter(handle, device, f"NVML {name}"),)


def _index(device: str) -> int:
    _, colon, index = device.partition(":")
    if colon:
        return int(index)
    import torch

    return torch.cuda.current_device() if torch.cuda.is_available() else 0


def _handle(index: int) -> Any:
    """Find the GPU that CUDA calls `index`: CUDA_VISIBLE_DEVICES renumbers, NVML does not."""
    import pynvml

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
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


@contextmanager
def _vendor_errors() -> Iterator[None]:
    """Map what NVML raises, once."""
    import pynvml

    try:
        yield
    except pynvml.NVMLError as error:
        raise CannotMeasure(
            f"NVML gives no energy: {error}",
            remedy="check with nvidia-smi that the driver runs; GPUs before Volta have no counter",
        ) from error
