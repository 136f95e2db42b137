"""What a GPU was like while it was measured: its clocks, its temperature, and whether it throttled.

A GPU that is too hot, or at its power cap, lowers its clocks: the same code is then slower, and a
time taken meanwhile is no verdict on it.
Reads, by NVML: SM and memory clocks, temperature, the reasons for which clocks are lowered just now,
and the nanoseconds that each has lasted so far, which also tell of the time between two looks.
Does not read: other processes on the GPU, and anything of a CPU.
Reference: NVML API, nvmlDeviceGetCurrentClocksThrottleReasons and nvmlDeviceGetViolationStatus.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.power.nvml import open_gpu, vendor_errors

# Bits of NVML's reasons, by the name of their constants there. Not among them: that it is idle, that
# somebody has set its clocks, and the highest voltage, at which a GPU is fastest.
_REASONS = {
    "SwPowerCap": "power cap",
    "HwPowerBrakeSlowdown": "power brake",
    "SwThermalSlowdown": "thermal slowdown",
    "HwThermalSlowdown": "thermal slowdown",
    "HwSlowdown": "hardware slowdown",
    "SyncBoost": "sync boost",
}
_POLICIES = {
    "POWER": "power cap",
    "THERMAL": "thermal slowdown",
    "SYNC_BOOST": "sync boost",
    "BOARD_LIMIT": "board limit",
}
# A cap that was met for less than this share of the time between two looks moves no median.
_SHORT = 0.01


_COOLER = (
    "let the GPU cool down, or lock its clocks where it can keep them: "
    "nvidia-smi --lock-gpu-clocks=MHZ"
)


class Watch:
    """What was seen of a device so far: its notes, and what disturbed it, or ""."""

    notes: tuple[str, ...] = ()
    disturbed: str = ""

    @property
    def remedy(self) -> str:
        """What to do about what disturbed it, or ""; to measure for longer is none."""
        return _COOLER if self.disturbed else ""

    def look(self) -> str:
        """Look once more, and return what has disturbed it since the last look, or "".

        Good between two batches, where a GPU is still as warm as they made it.
        """
        return ""


class GpuWatch(Watch):
    """What NVML says of one GPU."""

    def __init__(self, device: str, *, now_s: Callable[[], float] = time.perf_counter) -> None:
        self._now_s = now_s
        self._seen: dict[str, list[int]] = {}
        self._lacking: dict[str, str] = {}
        self._why: dict[str, None] = {}
        self._lasted_ns: dict[str, int] = {}
        self._looked_s: float | None = None
        self._handle = open_gpu(device)

    def look(self) -> str:
        """Read everything once; what NVML does not tell is noted with its own words."""
        import pynvml as nvml

        for what, ask, which in (
            ("SM clock", nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
            ("memory clock", nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM),
            ("temperature", nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
        ):
            value = self._told(what, ask, which)
            if value is not None:
                self._seen.setdefault(what, []).append(value)
        now_s, why = self._now_s(), dict[str, None]()
        reasons = self._told("throttle reasons", nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
        for name, words in _REASONS.items():
            if reasons is not None and reasons & getattr(nvml, f"nvmlClocksThrottleReason{name}"):
                why[words] = None
        for name, words in _POLICIES.items():
            policy = getattr(nvml, f"NVML_PERF_POLICY_{name}")
            status = self._told("time spent throttled", nvml.nvmlDeviceGetViolationStatus, policy)
            if status is None:
                continue
            before_ns = self._lasted_ns.get(name)
            self._lasted_ns[name] = status.violationTime
            if before_ns is None or self._looked_s is None:
                continue
            if status.violationTime - before_ns > _SHORT * 1e9 * (now_s - self._looked_s):
                why[words] = None
        self._looked_s = now_s
        self._why |= why
        self._tell()
        return _throttled(why)

    def close(self) -> None:
        """Let go of NVML."""
        import pynvml

        with suppress(pynvml.NVMLError):  # all that was seen has been told
            pynvml.nvmlShutdown()

    def _told(self, what: str, ask: Callable[..., Any], *of: int) -> Any:
        """Ask NVML; None where it does not tell, which is noted."""
        try:
            with vendor_errors(what):
                return ask(self._handle, *of)
        except CannotMeasure as error:
            self._lacking[what] = error.reason
            return None

    def _tell(self) -> None:
        units = {"SM clock": "MHz", "memory clock": "MHz", "temperature": "°C"}
        ranges = [f"{what} {_range(self._seen[what])} {units[what]}" for what in self._seen]
        notes = [f"GPU: {', '.join(ranges)}"] if ranges else []
        if self._lacking:
            notes.append(f"NVML does not tell everything: {'; '.join(self._lacking.values())}")
        self.notes = tuple(notes)
        self.disturbed = _throttled(self._why)


class _Unwatched(Watch):
    """A GPU of which nothing can be seen, and why."""

    def __init__(self, why: str) -> None:
        self.notes = (f"whether the GPU throttled is not known: {why}",)


@contextmanager
def conditions(device: str) -> Iterator[Watch]:
    """Watch a device while it is measured, from before to after; it is told by what is handed out.

    Only NVIDIA GPUs are watched. Where NVML cannot be used a note says so; nothing is raised.
    """
    if device.partition(":")[0] != "cuda":
        yield Watch()
        return
    try:
        with vendor_errors("NVML"):
            watch = GpuWatch(device)
    except CannotMeasure as error:
        yield _Unwatched(error.reason)
        return
    try:
        watch.look()
        yield watch
    finally:
        watch.look()
        watch.close()


def _throttled(why: Iterable[str]) -> str:
    reasons = ", ".join(why)
    return f"the GPU throttled ({reasons})" if reasons else ""


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"
