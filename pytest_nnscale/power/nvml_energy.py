"""Joules of NVIDIA GPUs: the counter that NVML serves (Volta and later), else its power, summed up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.power.nvml import open_gpu, vendor_errors

NO_ENERGY = "NVML gives no energy"
CHECK = "check with nvidia-smi that the driver runs"
_SLICE = "of the whole GPU, the other slices of it (MIG) included"
# How often the power of a GPU without a counter is asked for.
_ASK_S = 0.01
_AVERAGED = (
    "summed up from NVML's power, asked for every 10 ms: some GPUs average it over 1 s, so a window "
    "has a part of what was before it"
)


@dataclass
class NvmlCounter:
    """The energy counter of one GPU, in millijoules."""

    handle: Any
    device: str
    name: str
    notes: tuple[str, ...] = ()
    resolution_j: float = 1e-3
    resolution_s: float = 0.1  # the longest interval between two updates that is known of

    def __post_init__(self) -> None:
        self._last_j = 0.0

    def read_j(self) -> float:
        """Return joules since the driver was loaded; CannotMeasure where it was loaded anew."""
        import pynvml

        with vendor_errors(NO_ENERGY, remedy=CHECK):
            joules = int(pynvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)) / 1000
        if joules < self._last_j:
            raise CannotMeasure(
                f"the counter of {self.name} went back from {self._last_j:.6g} J to {joules:.6g} J: "
                "the driver was loaded anew, or the GPU reset",
                remedy="measure again",
            )
        self._last_j = joules
        return joules

    def running(self) -> AbstractContextManager[Any]:
        """Nothing has to be entered."""
        return nullcontext()


@dataclass
class NvmlPower:
    """The power of a GPU that has no counter, summed up by a thread while it runs."""

    handle: Any
    device: str
    name: str
    notes: tuple[str, ...] = ()
    resolution_j: float = 0.0
    resolution_s: float = 2 * _ASK_S
    _joules: float = 0.0
    _sums: bool = False
    _lost: CannotMeasure | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read_j(self) -> float:
        """Return the joules so far; CannotMeasure where the GPU was lost, or nothing sums up."""
        with self._lock:
            if self._lost is not None:
                raise self._lost
            if not self._sums:
                raise CannotMeasure(f"{self.name} is not being summed up", remedy="enter running()")
            return self._joules

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ask for the power all the while."""
        ended = threading.Event()
        thread = threading.Thread(target=self._sum_up, args=(ended,), daemon=True)
        thread.start()
        self._sums = True
        try:
            yield
        finally:
            self._sums = False
            ended.set()
            thread.join()

    def _sum_up(self, ended: threading.Event) -> None:
        try:
            before_s, before_w = time.perf_counter(), self._watts()
            while not ended.wait(_ASK_S):
                now_s, now_w = time.perf_counter(), self._watts()
                with self._lock:
                    self._joules += (now_s - before_s) * (now_w + before_w) / 2
                before_s, before_w = now_s, now_w
        except CannotMeasure as error:
            with self._lock:
                self._lost = error

    def _watts(self) -> float:
        import pynvml

        with vendor_errors("NVML gives no power", remedy=CHECK):
            return int(pynvml.nvmlDeviceGetPowerUsage(self.handle)) / 1000


def find_nvml(device: str = "cuda") -> tuple[NvmlCounter | NvmlPower, ...]:
    """Open the counter of one visible GPU; "cuda" is the current one's."""
    import pynvml

    with vendor_errors(NO_ENERGY, remedy=CHECK):
        handle = open_gpu(device)
        notes: tuple[str, ...] = ()
        if _is_slice(handle):
            handle = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
            notes = (_SLICE,)
        name = pynvml.nvmlDeviceGetName(handle)
        try:
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except pynvml.NVMLError_NotSupported:
            # The first question tells whether it has that at least.
            pynvml.nvmlDeviceGetPowerUsage(handle)
            return (NvmlPower(handle, device, f"NVML power of {name}", (*notes, _AVERAGED)),)
    return (NvmlCounter(handle, device, f"NVML {name}", notes),)


def _is_slice(handle: Any) -> bool:
    import pynvml

    try:
        is_slice = pynvml.nvmlDeviceIsMigDeviceHandle(handle)
    except pynvml.NVMLError:
        return False  # drivers before MIG
    return bool(getattr(is_slice, "value", is_slice))
