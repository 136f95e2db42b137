"""NVIDIA GPUs through NVML: which one CUDA means, and what the driver's errors become."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pytest_nnscale.errors import CannotMeasure, NothingThere

_CHECK = "check with nvidia-smi that the driver runs"
# What to do about an error of NVML, by its code; about all others: see whether the driver runs.
_REMEDIES = {
    3: "measure on a GPU that counts it",
    4: "have the administrator allow it, or in a container NVIDIA_DRIVER_CAPABILITIES=compute,utility",
    6: "check CUDA_VISIBLE_DEVICES",
    12: "install NVIDIA's driver, or in a container NVIDIA_DRIVER_CAPABILITIES=compute,utility",
    13: "update NVIDIA's driver",
    15: "look for Xid errors in the kernel's log, and restart the machine",
    16: "reset the GPU, or restart the machine",
    17: "stop whatever else manages the GPU",
}
# These say that there is nothing to read here; all others, that something is wrong.
_NOTHING_THERE = (3, 4, 9, 12, 13)


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
    if uuid or bus:
        return _known_to_torch(uuid, bus)
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
    return _found(pynvml.nvmlDeviceGetHandleByUUID, name) or _by_start_of_uuid(name)


def _known_to_torch(uuid: str, bus: str) -> Any:
    """Find the GPU that torch computes on; its number would be another one's."""
    import pynvml

    for kind in ("GPU", "MIG") if uuid else ():
        handle = _found(pynvml.nvmlDeviceGetHandleByUUID, f"{kind}-{uuid}")
        if handle is not None:
            return handle
    handle = _found(pynvml.nvmlDeviceGetHandleByPciBusId, bus) if bus else None
    if handle is None:
        raise NothingThere(
            f"NVML knows no GPU {uuid or bus}, on which torch computes",
            remedy="check that torch and nvidia-smi see the same GPUs",
        )
    return handle


def _by_start_of_uuid(start: str) -> Any:
    """Find the only GPU whose UUID begins so, which is enough of a name for CUDA."""
    import pynvml

    handles = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]
    found = [each for each in handles if pynvml.nvmlDeviceGetUUID(each).startswith(start)]
    if len(found) != 1 or not start.startswith("GPU-"):
        raise CannotMeasure(
            f"CUDA_VISIBLE_DEVICES has {start!r}, by which NVML knows {len(found) or 'no'} GPU"
            f"{'s' if len(found) > 1 else ''}",
            remedy="give a whole UUID, as nvidia-smi -L lists them",
        )
    return found[0]


def _found(look_up: Callable[[str], Any], name: str) -> Any | None:
    """Return what NVML finds by a name; None where it knows none such."""
    import pynvml

    try:
        return look_up(name)
    except (pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument):
        return None


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
def vendor_errors(what_fails: str) -> Iterator[None]:
    """Map what NVML raises, once: to CannotMeasure, in NVML's own words, with what to do about it."""
    import pynvml

    try:
        yield
    except pynvml.NVMLError as error:
        kind = NothingThere if error.value in _NOTHING_THERE else CannotMeasure
        remedy = _REMEDIES.get(error.value, _CHECK)
        raise kind(f"{what_fails}: {error}", remedy=remedy) from error
