"""CPU packages and memory: RAPL of Intel and AMD through Linux's powercap tree, in microjoules.

Source: the kernel's Documentation/power/powercap/powercap.rst. `intel-rapl:N` is a package or psys,
`intel-rapl:N:M` a zone inside it: core and uncore are part of their package, dram is not. psys
contains the packages, so it counts only where there are none.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pytest_nnscale.errors import CannotMeasure

_MICRO = 1e-6
_ZONE = re.compile(r"[a-z-]*rapl[a-z-]*(:\d+)+")
_DEPTH = 3
# What no package draws; where the tree states limits, twice the highest of them.
_MOST_W = 1000.0


class Zone(NamedTuple):
    """A folder of the tree: `package` is the name of the package that it is or lies in."""

    path: Path
    name: str
    package: str

    @property
    def is_package(self) -> bool:
        """Whether it is a package or a die, which holds its cores."""
        return self.name.startswith("package")

    @property
    def shown(self) -> str:
        """What a user reads."""
        return self.name if self.name == self.package else f"{self.name} of {self.package}"


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
        raise CannotMeasure(
            f"no RAPL zone under {root}: this is a virtual machine or container, "
            "no Linux, or a processor without RAPL",
            remedy="run on bare metal, or mount the host's powercap tree and name it by "
            "nnscale_powercap_root",
        )
    return tuple(_opened(zone) for zone in sorted(counted, key=lambda zone: zone.path.name))


def zones_of(root: Path) -> Iterator[Zone]:
    """Yield every zone once: a package may be there by links, by folders, and by a second interface."""
    seen: set[tuple[str, str]] = set()
    folders = sorted(_folders(root), key=lambda folder: ("mmio" in folder.name, folder.name))
    names = {folder.name: _name(folder) for folder in folders}
    for folder in folders:
        name = names[folder.name]
        package = names.get(folder.name.rpartition(":")[0], "") or name
        if name and (name, package) not in seen:
            seen.add((name, package))
            yield Zone(folder, name, package)


def _folders(root: Path, depth: int = _DEPTH) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if not entry.is_dir():
            continue
        if _ZONE.fullmatch(entry.name):
            yield Path(entry.path)
        # Links lead to folders that are listed beside them, or round in circles.
        if depth > 1 and not entry.is_symlink():
            yield from _folders(Path(entry.path), depth - 1)


def _name(folder: Path) -> str:
    with suppress(OSError):
        return (folder / "name").read_text().strip()
    return ""


def _opened(zone: Zone) -> RaplCounter:
    range_j = _number(zone.path / "max_energy_range_uj") * _MICRO
    return RaplCounter(zone.path, f"RAPL {zone.shown}", range_j, _most_w(zone.path))


def _most_w(folder: Path) -> float:
    """Return twice the highest power limit that the tree states, for short bursts are above it."""
    limits = [0]
    for file in (*folder.glob("constraint_*_max_power_uw"), *folder.glob("constraint_*_limit_uw")):
        with suppress(CannotMeasure):
            limits.append(_number(file))
    return 2 * max(limits) * _MICRO or _MOST_W


def _read_j(zone: Path) -> float:
    return _number(zone / "energy_uj") * _MICRO


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except PermissionError as error:
        raise CannotMeasure(f"{file} may not be read", remedy=f"sudo chmod a+r {file}") from error
    except (OSError, ValueError) as error:
        raise CannotMeasure(
            f"{file} cannot be read: {error}", remedy="check the powercap tree"
        ) from error
