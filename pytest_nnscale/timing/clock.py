"""Clocks: the wall's, one that waits for the device, and one that tests set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

_EMPTY_CALLS = 100


class Batch(NamedTuple):
    """A call that is made some times in a row, and timed as a whole."""

    call: Callable[[], object]
    calls: int


class Clock(Protocol):
    """What tells the time in seconds, and how finely; `method` is what it goes by."""

    resolution_s: float
    method: str

    def now_s(self) -> float:
        """Return seconds since some fixed moment; work already asked for counts as done."""

    def times_s(self, call: Callable[[], object], *, calls: int, batches: int) -> list[float]:
        """Make batches of some calls each, and return the seconds per call of each batch."""

    def turns_s(self, turns: Iterable[Batch]) -> list[float]:
        """Make batches one after the other, and return the seconds per call of each."""


def times_by_reading(clock: Clock, batches: Iterable[Batch]) -> list[float]:
    """Time batches of calls by reading a clock before and after each."""
    seconds = []
    now_s = clock.now_s
    for call, calls in batches:
        start_s = now_s()
        for _ in range(calls):
            call()
        seconds.append((now_s() - start_s) / calls)
    return seconds


def overhead_s(clock: Clock, calls: int) -> float:
    """Return what a clock says that an empty call takes, in batches of some: the least of many."""
    return min(clock.times_s(_nothing, calls=calls, batches=_EMPTY_CALLS))


def _nothing() -> None:
    """Take no time."""


class WallClock:
    """The monotonic wall clock, after waiting for whatever the device still has to do."""

    method = "wall clock"

    def __init__(self, device: str = "cpu") -> None:
        self.resolution_s = time.get_clock_info("perf_counter").resolution
        self._device = device

    def now_s(self) -> float:
        """Return seconds of `time.perf_counter`, with the device's queue empty.

        On CUDA those of all GPUs: a model may go on on another one.
        """
        kind, colon, _ = self._device.partition(":")
        if kind == "cuda":
            from pytest_nnscale.timing.events import wait_for_gpus

            wait_for_gpus(self._device)
            return time.perf_counter()
        if kind not in ("cpu", "meta"):
            import torch

            # Without an index it is the current device that is waited for; there is one MPS.
            which = (torch.device(self._device),) if colon and kind != "mps" else ()
            getattr(torch, kind).synchronize(*which)
        return time.perf_counter()

    def times_s(self, call: Callable[[], object], *, calls: int, batches: int) -> list[float]:
        """Read the clock before and after each batch."""
        return times_by_reading(self, [Batch(call, calls)] * batches)

    def turns_s(self, turns: Iterable[Batch]) -> list[float]:
        """Read the clock before and after each batch."""
        return times_by_reading(self, turns)


@dataclass
class FakeClock:
    """A clock for tests: time passes only in `work`, by the next of the scripted durations."""

    durations_s: Iterable[float]
    resolution_s: float = 1e-9
    time_s: float = 0.0
    method: str = "wall clock"

    def __post_init__(self) -> None:
        self._script = iter(self.durations_s)

    def now_s(self) -> float:
        """Return the seconds that scripted work has taken so far."""
        return self.time_s

    def times_s(self, call: Callable[[], object], *, calls: int, batches: int) -> list[float]:
        """Read the clock before and after each batch."""
        return times_by_reading(self, [Batch(call, calls)] * batches)

    def turns_s(self, turns: Iterable[Batch]) -> list[float]:
        """Read the clock before and after each batch."""
        return times_by_reading(self, turns)

    def work(self) -> None:
        """Let the next scripted duration pass; StopIteration where the script is at its end."""
        self.time_s += next(self._script)
