"""Measure calls of a few milliseconds by what a simulated machine counts, and print what came of it.

    python measuring.py JOBS

JOBS is a JSON list of objects: `device`, and any of `watts` (the truth), `max_time_s`, `powercap_root`,
`visible` (CUDA_VISIBLE_DEVICES), `opens_only`. A line of JSON is printed for each.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch  # noqa: F401 - which GPU is meant is asked of it; its import is not to take the driver's time

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.meters.energy import measure_energy
from pytest_nnscale.power.sources import find_counters
from pytest_nnscale.power.wanted import POWERCAP_ROOT, Wanted
from pytest_nnscale.timing.clock import WallClock

_CALL_S = 0.004


def main() -> None:
    """Do one job after the other."""
    for job in json.loads(sys.argv[1]):
        print(json.dumps(done(job)), flush=True)  # noqa: T201 - the parent reads it


def done(job: dict[str, Any]) -> dict[str, Any]:
    """Return what came of one job: names, or a measurement with the truth."""
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    if "visible" in job:
        os.environ["CUDA_VISIBLE_DEVICES"] = job["visible"]
    wanted = Wanted(powercap_root=Path(job.get("powercap_root", POWERCAP_ROOT)))
    if job.get("opens_only"):
        try:
            counters = find_counters(job["device"], wanted)
        except CannotMeasure as error:
            return {"reason": error.reason, "remedy": error.remedy}
        return {
            "names": [each.name for each in counters],
            "notes": [each.notes for each in counters],
        }
    return measured(job["device"], job.get("watts", 0.0), job.get("max_time_s", 1.0), wanted)


def measured(device: str, watts: float, max_time_s: float, wanted: Wanted) -> dict[str, Any]:
    """Return a measurement that takes all its time, beside the joules that the set power makes."""
    ends_s: list[float] = []

    def call() -> None:
        time.sleep(_CALL_S)
        ends_s.append(time.perf_counter())

    found = measure_energy(
        call,
        device=device,
        limit_j=watts * _CALL_S,
        max_time_s=max_time_s,
        wanted=wanted,
        clock=WallClock("cpu"),
    )
    calls = len(ends_s) - 3  # after those that warm up
    truth_j = watts * (ends_s[-1] - ends_s[2]) / calls if calls > 0 else None
    return {**found.to_dict(), "truth_j": truth_j}


if __name__ == "__main__":
    main()
