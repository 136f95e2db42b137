"""Measure calls of a few milliseconds by what a simulated machine counts, and print what came of it.

    python measuring.py JOBS

JOBS is a JSON list of objects: `device`, and any of `watts` (the truth), `max_time_s`, `powercap_root`,
`visible` (CUDA_VISIBLE_DEVICES), `torch` (what it tells of the GPU), `opens_only`. A line of JSON is
printed for each.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

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
    # A GPU that this machine may have is none of the simulated driver's.
    torch.cuda.is_available = lambda: "torch" in job
    torch.cuda.get_device_properties = lambda _index: SimpleNamespace(**job["torch"])
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
    # The next call is due so long after the one before, however long the machine held that up: a
    # call takes the set joules, and no others.
    calls, due_s = 0, 0.0

    def call() -> None:
        nonlocal calls, due_s
        calls, due_s = calls + 1, (due_s or time.perf_counter()) + _CALL_S
        time.sleep(max(0.0, due_s - time.perf_counter()))

    found = measure_energy(
        call,
        device=device,
        limit_j=watts * _CALL_S,
        max_time_s=max_time_s,
        wanted=wanted,
        clock=WallClock("cpu"),
    )
    return {**found.to_dict(), "calls": calls, "truth_j": watts * _CALL_S}


if __name__ == "__main__":
    main()
