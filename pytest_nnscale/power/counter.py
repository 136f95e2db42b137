"""The protocol of an energy counter, the search for those of this machine, and one for tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pytest_nnscale.errors import CannotMeasure


class EnergyCounter(Protocol):
    """A counter of joules since some fixed moment; it moves in steps, and only now and then."""

    name: str
    device: str
    resolution_j: float
    resolution_s: float

    def read_j(self) -> float:
        """Return joules since the counter was opened; CannotMeasure where it is lost."""


POWERCAP_ROOT = Path("/sys/class/powercap")


def find_counters(
    device: str = "cpu", *, powercap_root: Path = POWERCAP_ROOT
) -> tuple[EnergyCounter, ...]:
    """Return the counters of a device; CannotMeasure says for each source why there is none."""
    kind = device.partition(":")[0]
    if kind == "cuda":
        from pytest_nnscale.power.nvml import find_nvml

        return find_nvml(device)
    if kind == "cpu":
        from pytest_nnscale.power.rapl import find_rapl

        return find_rapl(powercap_root)
    raise CannotMeasure(
        f"no energy counter is known for {kind} devices",
        remedy="measure on a CPU with RAPL or an NVIDIA GPU",
    )


@dataclass
class FakeCounter:
    """A counter for tests: a set power over a clock, in steps of its resolutions."""

    power_w: float
    now_s: Callable[[], float]
    resolution_j: float = 1e-6
    name: str = "fake"
    device: str = "cpu"
    resolution_s: float = 0.0

    def read_j(self) -> float:
        """Return the energy at the last update, rounded down to the last full step."""
        time_s = self.now_s()
        if self.resolution_s:
            time_s = time_s // self.resolution_s * self.resolution_s
        return self.power_w * time_s // self.resolution_j * self.resolution_j
