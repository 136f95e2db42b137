"""The protocol of an energy counter, and one for tests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol


class EnergyCounter(Protocol):
    """A counter of joules since some fixed moment; it moves in steps, and only now and then.

    `resolution_j` is the step, `resolution_s` the longest time between two updates. What it tells may
    be an average over the last `lag_s`. `notes` are what whoever reads its joules has to know.
    """

    name: str
    device: str
    resolution_j: float
    resolution_s: float
    lag_s: float
    notes: tuple[str, ...]

    def read_j(self) -> float:
        """Return joules since the counter was opened; CannotMeasure where it is lost."""

    def running(self) -> AbstractContextManager[Any]:
        """Return what has to be entered while it is read, for one that needs more than reading."""


@dataclass
class FakeCounter:
    """A counter for tests: a set power over a clock, in steps of its resolutions."""

    power_w: float | Callable[[float], float]
    now_s: Callable[[], float]
    resolution_j: float = 1e-6
    name: str = "fake"
    device: str = "cpu"
    resolution_s: float = 0.0
    lag_s: float = 0.0
    notes: tuple[str, ...] = ()

    def read_j(self) -> float:
        """Return the energy at the last update, rounded down to the last full step.

        A power that is a function is the energy up to a time.
        """
        time_s = self.now_s()
        if self.resolution_s:
            time_s = (time_s / self.resolution_s + 1e-9) // 1 * self.resolution_s
        joules = self.power_w(time_s) if callable(self.power_w) else self.power_w * time_s
        return joules // self.resolution_j * self.resolution_j

    def running(self) -> AbstractContextManager[Any]:
        """Nothing has to be entered."""
        return nullcontext()
