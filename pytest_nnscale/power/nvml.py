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

    Torch knows its UUID and its bus, which both go by. Without torch's word, and where a slice of a
    GPU is named, whose own UUID torch may not tell, CUDA_VISIBLE_DEVICES renumbers.
    """
    import pynvml

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    uuid, bus = ("", "") if visible and "MIG-" in visible else _uuid_and_bus(index)
    # What is not found may be a slice of one; what else fails is asked again below.
    for kind in ("GPU", "MIG") if uuid else ():
        with suppress(pynvml.NVMLError):
            return pynvml.nvmlDeviceGetHandleByUUID(f"{kind}-{uuid}")
    if bus:
        with suppress(pynvml.NVMLError):
            return pynvml.nvmlDeviceGetHandleByPciBusId(bus)
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


def _uuid_and_bus(index: int) -> tuple[str, str]:
    """Return the UUID of a GPU and its PCI bus id, "" for what torch does not tell."""
    import torch

    if not torch.cuda.is_available():
        return "", ""
    try:
        told: Any = torch.cuda.get_device_properties(index)
    except Exception:  # torch's own errors differ between its versions
        return "", ""
    bus = ""
    if hasattr(told, "pci_bus_id"):
        bus = f"{told.pci_domain_id:08X}:{told.pci_bus_id:02X}:{told.pci_device_id:02X}.0"
    return str(getattr(told, "uuid", "")), bus


@contextmanager
def vendor_errors(what_fails: str, *, remedy: str) -> Iterator[None]:
    """Map what NVML raises, once: to CannotMeasure, in NVML's own words."""
    import pynvml

    try:
        yield
    except pynvml.NVMLError as error:
        raise CannotMeasure(f"{what_fails}: {error}", remedy=remedy) from error
