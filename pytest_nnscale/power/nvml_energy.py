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
_SLICE = "of the whole GPU, the other slices of it (MIG) included"
# How often the power of a GPU without a counter is asked for, and how rarely it may be at worst.
_ASK_S, _ASKED_AT_LEAST_S = 0.01, 0.1
# Over as long a time some GPUs average their power.
_AVERAGED_S = 1.0
_AVERAGED = (
    "summed up from NVML's power, asked for every 10 ms; some GPUs average it over 1 s, so the work "
    "goes on for as long before it counts"
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
    lag_s: float = 0.0

    def __post_init__(self) -> None:
        self._last_j = 0.0

    def read_j(self) -> float:
        """Return joules since the driver was loaded; CannotMeasure where it was loaded anew."""
        import pynvml

        with vendor_errors(NO_ENERGY):
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
    resolution_s: float = _ASKED_AT_LEAST_S
    lag_s: float = _AVERAGED_S
    _joules: float = 0.0
    _until_s: float = 0.0
    _sums: bool = False
    _lost: CannotMeasure | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read_j(self) -> float:
        """Return the joules so far; CannotMeasure where the GPU was lost, or nothing sums up.

        Also where they are older than `resolution_s`: the thread that sums up was not let run.
        """
        with self._lock:
            if self._lost is not None:
                raise self._lost
            if not self._sums:
                raise CannotMeasure(f"{self.name} is not being summed up", remedy="enter running()")
            self._check(time.perf_counter() - self._until_s)
            return self._joules

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ask for the power all the while."""
        ended = threading.Event()
        thread = threading.Thread(target=self._sum_up, args=(ended,), daemon=True)
        self._joules, self._lost, self._until_s = 0.0, None, time.perf_counter()
        self._sums = True
        thread.start()
        try:
            yield
        finally:
            self._sums = False
            ended.set()
            thread.join()

    def _sum_up(self, ended: threading.Event) -> None:
        try:
            before_w = self._watts()
            while not ended.wait(_ASK_S):
                now_w, now_s = self._watts(), time.perf_counter()
                with self._lock:
                    self._check(now_s - self._until_s)
                    self._joules += (now_s - self._until_s) * (now_w + before_w) / 2
                    self._until_s, before_w = now_s, now_w
        except CannotMeasure as error:
            self._lost = error
        except Exception as error:
            self._lost = CannotMeasure(
                f"{self.name} could not be summed up: {type(error).__name__}: {error}",
                remedy="measure again",
            )

    def _check(self, gap_s: float) -> None:
        if gap_s > self.resolution_s:
            raise CannotMeasure(
                f"{self.name} was not asked for during {gap_s:.2g} s: the call let no other thread of "
                "this process run",
                remedy="measure a shorter call, or on a machine that does nothing else",
            )

    def _watts(self) -> float:
        import pynvml

        with vendor_errors("NVML gives no power"):
            return int(pynvml.nvmlDeviceGetPowerUsage(self.handle)) / 1000


def find_nvml(device: str = "cuda") -> tuple[NvmlCounter | NvmlPower, ...]:
    """Open the counter of one visible GPU; "cuda" is the current one's."""
    import pynvml

    with vendor_errors(NO_ENERGY):
        handle = open_gpu(device)
        sliced = _is_slice(handle)
        if sliced:
            handle = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
        notes = (_SLICE,) if sliced or _is_cut(handle) else ()
        name = pynvml.nvmlDeviceGetName(handle)
        try:
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
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


def _is_cut(handle: Any) -> bool:
    """Tell whether a GPU is cut into slices (MIG), of which others may be at work."""
    import pynvml

    try:
        current, _pending = pynvml.nvmlDeviceGetMigMode(handle)
    except pynvml.NVMLError:
        return False
    return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)
