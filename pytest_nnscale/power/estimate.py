"""An estimate: the CPU time of this process, times what a busy core is stated to draw. No measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from pytest_nnscale.errors import CannotMeasure


@dataclass
class EstimatedCounter:
    """Joules as if each busy core drew the same power, and nothing else any."""

    watts_per_core: float
    device: str = "cpu"
    resolution_s: float = 0.0
    lag_s: float = 0.0
    estimated: bool = True
    cpu_s: Callable[[], float] = time.process_time

    def __post_init__(self) -> None:
        self.name = f"estimate: CPU time x {self.watts_per_core:g} W a core"
        self.resolution_j = self.watts_per_core * time.get_clock_info("process_time").resolution
        self.notes: tuple[str, ...] = (
            "an estimate, no measurement: other parts of the machine are not in it",
        )

    def read_j(self) -> float:
        """Return what the CPU time so far is estimated to have taken."""
        return self.watts_per_core * self.cpu_s()

    def running(self) -> AbstractContextManager[Any]:
        """Nothing has to be entered."""
        return nullcontext()


def estimate(watts_per_core: float | None) -> tuple[EstimatedCounter, ...]:
    """Return the estimate of the CPU; CannotMeasure where no power was stated."""
    if watts_per_core is None:
        raise CannotMeasure(
            "an estimate needs the power of a busy core",
            remedy="state it: nnscale_watts_per_core=8",
        )
    return (EstimatedCounter(watts_per_core),)
