"""A powercap tree in a folder whose zones count at a set power: run as a process, until it is ended.

    python powercap.py FOLDER RANGE_UJ UPDATE_S ZONE=WATTS ...

Every value is written in one step and has the same length, so a reader never sees half of one.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


def main() -> None:
    """Count until the process is ended."""
    root, range_uj, update_s, *zones = sys.argv[1:]
    watts = {zone: float(power) for zone, power in (each.split("=") for each in zones)}
    files = {zone: os.open(Path(root) / zone / "energy_uj", os.O_WRONLY) for zone in watts}
    begun_s = time.monotonic()
    while True:
        for zone, power in watts.items():
            joules_u = int(1e6 * power * (time.monotonic() - begun_s)) % int(range_uj)
            os.pwrite(files[zone], b"%020d" % joules_u, 0)
        time.sleep(float(update_s))


if __name__ == "__main__":
    main()
