"""CPU packages and memory: RAPL of Intel and AMD, in microjoules, by the zones of the powercap tree.

Core and uncore are part of their package, dram is not. psys contains the packages, so it counts only
where there are none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_nnscale.errors import CannotMeasure, NothingThere
from pytest_nnscale.power.powercap import Zone, check_rights, number_in, zones_of

_MICRO = 1e-6
# What no package draws; where the tree states limits, twice the highest of them.
_MOST_W = 1000.0
_READ = ("energy_uj", "max_energy_range_uj")
# An update may tell of so much more time than was between two readings.
_LATE_S = 0.1


@dataclass
class RaplCounter:
    """The counter of one zone; it wraps around at `max_energy_range_uj`."""

    zone: Path
    name: str
    range_j: float
    most_w: float = _MOST_W
    device: str = "cpu"
    resolution_j: float = 61e-6  # 2^-14 J, the coarsest unit that common processors count in
    resolution_s: float = 1e-3  # updates come about once a millisecond
    lag_s: float = 0.0
    notes: tuple[str, ...] = ()
    now_s: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._last_j, self._last_s = _read_j(self.zone), self.now_s()
        self._wraps = 0

    def read_j(self) -> float:
        """Return joules, wraps added; CannotMeasure where one may have been missed."""
        now_j, now_s = _read_j(self.zone), self.now_s()
        gap_s, self._last_s = now_s - self._last_s, now_s
        if gap_s * self.most_w > self.range_j:
            self._last_j = now_j
            raise CannotMeasure(
                f"{self.name} may have wrapped around unseen: it was not read for {gap_s:.2g} s, and "
                f"starts again at {self.range_j:.4g} J, which {self.most_w:.4g} W take less time for",
                remedy="measure a shorter call",
            )
        if now_j < self._last_j:
            if now_j + self.range_j - self._last_j > self.most_w * (gap_s + _LATE_S):
                raise CannotMeasure(
                    f"{self.name} went back from {self._last_j:.6g} J to {now_j:.6g} J, which is no wrap "
                    f"at {self.range_j:.4g} J: the machine slept, or the tree is another one now",
                    remedy="measure again",
                )
            self._wraps += 1
        self._last_j = now_j
        return now_j + self._wraps * self.range_j

    def running(self) -> AbstractContextManager[Any]:
        """Nothing has to be entered."""
        return nullcontext()


def find_rapl(root: Path) -> tuple[RaplCounter, ...]:
    """Open the zones of a powercap tree that count: packages and their memory, else psys."""
    zones = list(zones_of(root))
    packages = [zone for zone in zones if zone.is_package]
    counted = packages + [zone for zone in zones if zone.name == "dram"]
    if not packages:
        counted += [zone for zone in zones if zone.name == "psys"]
    if not counted:
        raise NothingThere(
            f"no RAPL zone under {root}: this is a virtual machine or container, "
            "no Linux, or a processor without RAPL",
            remedy="run on bare metal, or mount the host's powercap tree and name it by "
            "nnscale_powercap_root",
        )
    counted.sort(key=lambda zone: zone.path.name)
    check_rights([zone.path / file for zone in counted for file in _READ])
    return tuple(_opened(zone) for zone in counted)


def _opened(zone: Zone) -> RaplCounter:
    range_j = number_in(zone.path / "max_energy_range_uj") * _MICRO
    return RaplCounter(zone.path, f"RAPL {zone.shown}", range_j, _most_w(zone.path))


def _most_w(folder: Path) -> float:
    """Return twice the highest power limit that the tree states, for short bursts are above it."""
    limits = [0]
    for file in (*folder.glob("constraint_*_max_power_uw"), *folder.glob("constraint_*_limit_uw")):
        with suppress(CannotMeasure):
            limits.append(number_in(file))
    return 2 * max(limits) * _MICRO or _MOST_W


def _read_j(zone: Path) -> float:
    return number_in(zone / "energy_uj") * _MICRO
