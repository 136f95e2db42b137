"""Events of a CUDA device: what is asked of it, torch's answers, and a device that tests set."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol


class Driver(Protocol):
    """What a clock of events asks of a device, and of the host's clock."""

    l2_bytes: int

    def now_s(self) -> float:
        """Return the host's seconds since some fixed moment."""

    def event(self) -> Any:
        """Make an event that can be recorded many times."""

    def record(self, event: Any) -> None:
        """Put an event into the queue of the device, and do not wait."""

    def elapsed_s(self, start: Any, end: Any) -> float:
        """Return the device's seconds between two events that have been waited for."""

    def wait(self, event: Any) -> None:
        """Wait until the device has come to an event."""

    def synchronize(self) -> None:
        """Wait until the device has nothing more to do, nor any other that the process uses."""

    def scratch(self, nbytes: int) -> Callable[[], object]:
        """Return what zeroes a buffer of that size when the queue comes to it."""


def wait_for_gpus(device: Any) -> None:
    """Wait for all streams of a GPU, and of every other one that this process has used.

    One that it has not used is let be: to ask it would take time, and memory on it.
    """
    import torch

    asked = torch.device(device)
    torch.cuda.synchronize(None if asked.index is None else asked)  # or the one that is current
    # A private name, and the only way to find out without taking hold of a GPU.
    is_used = getattr(torch._C, "_cuda_hasPrimaryContext", lambda _index: True)
    for index in range(torch.cuda.device_count()):
        if index != asked.index and is_used(index):
            torch.cuda.synchronize(torch.device("cuda", index))


class TorchDriver:
    """A CUDA device as torch drives it; "cuda" is the one that is current now."""

    def __init__(self, device: str = "cuda") -> None:
        import torch

        index = torch.device(device).index
        self._device = torch.device("cuda", torch.cuda.current_device() if index is None else index)
        properties = torch.cuda.get_device_properties(self._device)
        self.l2_bytes = int(getattr(properties, "L2_cache_size", 0))

    def now_s(self) -> float:
        """Return seconds of `time.perf_counter`."""
        return time.perf_counter()

    def event(self) -> Any:
        """Make an event, and record it once: torch makes it when it is recorded first."""
        import torch

        event = torch.cuda.Event(enable_timing=True)
        self.record(event)
        return event

    def record(self, event: Any) -> None:
        """Put an event into the stream that is current on the device."""
        import torch

        event.record(torch.cuda.current_stream(self._device))

    def elapsed_s(self, start: Any, end: Any) -> float:
        """Return the seconds between two events; torch says milliseconds."""
        return float(start.elapsed_time(end)) / 1000

    def wait(self, event: Any) -> None:
        """Wait until the device has come to an event."""
        event.synchronize()

    def synchronize(self) -> None:
        """Wait for all streams of the device, and of all others that are used."""
        wait_for_gpus(self._device)

    def scratch(self, nbytes: int) -> Callable[[], object]:
        """Return what zeroes a buffer of that size in the stream that is current."""
        import torch

        buffer = torch.empty(nbytes, dtype=torch.uint8, device=self._device)
        return buffer.zero_


class FakeDriver:
    """A device for tests: asking takes the host's time, and its queue is worked off in its own.

    `side` is a stream, or another device, that no event sees. Asking how much time lies between two events that were
    not waited for is an error, as it is with torch.
    """

    def __init__(self, *, launch_s: float = 4e-6, l2_bytes: int = 1 << 20) -> None:
        self.l2_bytes = l2_bytes
        self.launch_s, self.host_s, self.device_s, self.side_s = launch_s, 0.0, 0.0, 0.0
        self.waits, self.wiped_bytes = 0, [0]
        self.asked: list[str] = []
        self._unread: dict[int, None] = {}
        self._times: list[float] = []

    def launch(self, duration_s: float, *, side: bool = False) -> None:
        """Ask for work, and do not wait for it."""
        self.asked.append("work")
        self.host_s += self.launch_s
        if side:
            self.side_s = max(self.side_s, self.host_s) + duration_s
        else:
            self.device_s = max(self.device_s, self.host_s) + duration_s

    @property
    def pending(self) -> int:
        """How many events were recorded and not waited for."""
        return len(self._unread)

    def now_s(self) -> float:
        """Return the host's time."""
        return self.host_s

    def event(self) -> int:
        """Return the number of a new event."""
        self._times.append(0.0)
        return len(self._times) - 1

    def record(self, event: int) -> None:
        """Note when the device comes to it: at once where it has nothing to do."""
        self.asked.append("event")
        self.device_s = max(self.device_s, self.host_s)
        self._times[event] = self.device_s
        self._unread[event] = None

    def elapsed_s(self, start: int, end: int) -> float:
        """Return the device's time between two events."""
        if start in self._unread or end in self._unread:
            raise RuntimeError("device not ready")
        return self._times[end] - self._times[start]

    def wait(self, event: int) -> None:
        """Let the host's time pass until the device has come to an event."""
        self.waits += 1
        self.host_s = max(self.host_s, self._times[event])
        self._unread = {e: None for e in self._unread if self._times[e] > self._times[event]}

    def synchronize(self) -> None:
        """Let the host's time pass until everything is done."""
        self.waits += 1
        self.host_s = max(self.host_s, self.device_s, self.side_s)
        self._unread.clear()

    def scratch(self, nbytes: int) -> Callable[[], object]:
        """Return what takes a microsecond of the device for each megabyte, and notes its size."""

        def zero() -> None:
            self.wiped_bytes.append(nbytes)
            self.launch(nbytes * 1e-12)
            self.asked[-1] = "wipe"

        return zero
