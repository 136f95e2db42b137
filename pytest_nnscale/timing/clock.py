"""Clocks: the wall's, one that waits for the device, and one that tests set."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """What tells the time in seconds, and how finely."""

    resolution_s: float

    def now_s(self) -> float:
        """Return seconds since some fixed moment; work already asked for counts as done."""


class WallClock:
    """The monotonic wall clock, after waiting for whatever the device still has to do."""

    def __init__(self, device: str = "cpu") -> None:
        self.resolution_s = time.get_clock_info("perf_counter").resolution
        self._device = device

    def now_s(self) -> float:
        """Return seconds of `time.perf_counter`, with the device's queue empty."""
        kind, colon, _ = self._device.partition(":")
        if kind not in ("cpu", "meta"):
            import torch

            # Without an index it is the current device that is waited for; there is one MPS.
            which = (torch.device(self._device),) if colon and kind != "mps" else ()
            getattr(torch, kind).synchronize(*which)
        return time.perf_counter()


@dataclass
class FakeClock:
    """A clock for tests: time passes only in `work`, by the next of the scripted durations."""

    durations_s: Iterable[float]
    resolution_s: float = 1e-9
    time_s: float = 0.0

    def __post_init__(self) -> None:
        self._script = iter(self.durations_s)

    def now_s(self) -> float:
        """Return the seconds that scripted work has taken so far."""
        return self.time_s

    def work(self) -> None:
        """Let the next scripted duration pass; StopIteration where the script is at its end."""
        self.time_s += next(self._script)
