"""Which joules are wanted: from which source, of how much of the machine, and what is said beside them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

POWERCAP_ROOT = Path("/sys/class/powercap")


class Wanted(NamedTuple):
    """`source` "auto" takes what the device has, and never an estimate.

    With `scope` "machine" the CPU counts beside a GPU. `watts_per_core` is what an estimate assumes of
    a core that is busy. Grams of CO2 are told where `grid_g_per_kwh` is given.
    """

    source: str = "auto"
    scope: str = "device"
    above_idle: bool = False
    powercap_root: Path = POWERCAP_ROOT
    watts_per_core: float | None = None
    grid_g_per_kwh: float | None = None
