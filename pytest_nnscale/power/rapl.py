"""CPU packages and memory: RAPL through Linux's powercap tree, in microjoules.

Source: the kernel's Documentation/power/powercap/powercap.rst. `intel-rapl:N` is a package or psys,
`intel-rapl:N:M` a zone inside it: core and uncore are part of their package, dram is not. psys
contains the packages, so it is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_nnscale.errors import CannotMeasure

_MICROJOULE = 1e-6


@dataclass
class RaplCounter:
    """The counter of one zone; it wraps around at `max_energy_range_uj`."""

    zone: Path
    name: str
    range_j: float
    device: str = "cpu"
    resolution_j: float = 61e-6  # 2^-14 J, the coarsest unit that common processors count in
    resolution_s: float = 1e-3  # updates come about once a millisecond

    def __post_init__(self) -> None:
        self._last_j = _read_j(self.zone)
        self._wraps = 0

    def read_j(self) -> float:
        """Return joules, the wraps that were seen added; read more often than it wraps."""
        now_j = _read_j(self.zone)
        if now_j < self._last_j:
            self._wraps += 1
        self._last_j = now_j
        return now_j + self._wraps * self.range_j


def find_rapl(root: Path) -> tuple[RaplCounter, ...]:
    """Open the package and dram zones of a powercap tree."""
    zones = sorted(root.glob("intel-rapl:*")) if root.is_dir() else []
    wanted = []
    for zone in zones:
        name = (zone / "name").read_text().strip() if (zone / "name").is_file() else ""
        if name.startswith("package") or name == "dram":
            wanted.append((zone, name))
    if not wanted:
        raise CannotMeasure(
            f"no RAPL zone under {root}: this is a virtual machine or container, "
            "no Linux, or a processor without RAPL",
            remedy="run on bare metal, or mount the host's powercap tree",
        )
    return tuple(RaplCounter(zone, f"RAPL {name}", _range_j(zone)) for zone, name in wanted)


def _range_j(zone: Path) -> float:
    return _number(zone / "max_energy_range_uj") * _MICROJOULE


def _read_j(zone: Path) -> float:
    return _number(zone / "energy_uj") * _MICROJOULE


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except PermissionError as error:
        raise CannotMeasure(f"{file} may not be read", remedy=f"sudo chmod a+r {file}") from error
    except (OSError, ValueError) as error:
        raise CannotMeasure(
            f"{file} cannot be read: {error}", remedy="check the powercap tree"
        ) from error
