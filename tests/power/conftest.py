"""A driver of NVIDIA GPUs for tests: a module that stands for pynvml, with its errors."""

from __future__ import annotations

import ctypes
import sys
from types import ModuleType
from typing import Any

import pynvml as real
import pytest
import torch

H100 = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
OLD = "GPU-0aa00f2c-2b45-a2a5-8d1b-0e5f6d1a6f77"
SLICE = "MIG-1c9c8d7a-5d5f-5f0e-8f1a-7b1f6a2f3c4d"

ERRORS = {
    1: "Uninitialized",
    2: "Invalid Argument",
    3: "Not Supported",
    4: "Insufficient Permissions",
    6: "Not Found",
    9: "Driver Not Loaded",
    12: "NVML Shared Library Not Found",
    15: "GPU is lost",
}
UNINITIALIZED, INVALID, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND, NO_DRIVER, NO_LIBRARY, LOST = (
    ERRORS
)


class Driver(ModuleType):
    """A module that stands for pynvml: GPUs in the order of their buses, and error codes."""

    NVMLError = real.NVMLError
    NVMLError_NotSupported = real.NVMLError_NotSupported
    NVMLError_FunctionNotFound = real.NVMLError_FunctionNotFound
    NVMLError_NotFound = real.NVMLError_NotFound
    NVMLError_InvalidArgument = real.NVMLError_InvalidArgument
    NVML_DEVICE_MIG_ENABLE = real.NVML_DEVICE_MIG_ENABLE

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.uuids = [H100, OLD, "GPU-2", "GPU-3"]
        self.buses = [f"00000000:{bus}:00.0" for bus in ("17", "65", "B1", "CA")]
        self.energy_mj: dict[str, int | None] = {
            H100: 1_500,
            OLD: None,
            "GPU-2": 20_000,
            "GPU-3": None,
            SLICE: None,
        }
        self.power_mw = {OLD: 75_000}
        self.cut: set[str] = set()
        self.failing: dict[str, int] = {}
        self.initialized = False

    def _check(self, function: str) -> None:
        if function in self.failing:
            raise self.NVMLError(self.failing[function])
        if not self.initialized and function != "nvmlInit":
            raise self.NVMLError(UNINITIALIZED)

    def nvmlInit(self) -> None:  # noqa: N802
        self._check("nvmlInit")
        self.initialized = True

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        self._check("nvmlDeviceGetHandleByIndex")
        if not 0 <= index < len(self.uuids):
            raise self.NVMLError(INVALID)
        return self.uuids[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        self._check("nvmlDeviceGetHandleByUUID")
        if uuid not in self.energy_mj:
            raise self.NVMLError(NOT_FOUND)
        return uuid

    def nvmlDeviceGetHandleByPciBusId(self, bus: str) -> str:  # noqa: N802
        self._check("nvmlDeviceGetHandleByPciBusId")
        if bus not in self.buses:
            raise self.NVMLError(NOT_FOUND)
        return self.uuids[self.buses.index(bus)]

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._check("nvmlDeviceGetCount")
        return len(self.uuids)

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        self._check("nvmlDeviceGetUUID")
        return handle

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:  # noqa: N802
        self._check("nvmlDeviceGetMigMode")
        return [int(handle in self.cut), 0]

    def nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802
        self._check("nvmlDeviceGetName")
        return {H100: "NVIDIA H100 80GB HBM3"}.get(handle, f"the GPU {handle}")

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        self._check("nvmlDeviceGetTotalEnergyConsumption")
        energy_mj = self.energy_mj[handle]
        if energy_mj is None:
            raise self.NVMLError(NOT_SUPPORTED)
        return energy_mj

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        self._check("nvmlDeviceGetPowerUsage")
        if handle not in self.power_mw:
            raise self.NVMLError(NOT_SUPPORTED)
        return self.power_mw[handle]

    def nvmlDeviceIsMigDeviceHandle(self, handle: str) -> Any:  # noqa: N802
        self._check("nvmlDeviceIsMigDeviceHandle")
        return ctypes.c_uint(handle == SLICE)

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: str) -> str:  # noqa: N802
        self._check("nvmlDeviceGetDeviceHandleFromMigDeviceHandle")
        return H100


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Put a fake driver where pynvml is imported from, with every GPU visible."""
    fake = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    # A GPU of the machine that runs the tests is none of the fake driver's.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake
