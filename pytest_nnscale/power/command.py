"""`nnscale energy`: the counters of this machine, and for each that is missing why and what to do."""

from __future__ import annotations

import json as jsons
from pathlib import Path
from typing import Annotated

import typer

from pytest_nnscale.exits import Exit
from pytest_nnscale.power.sources import look_around
from pytest_nnscale.power.wanted import POWERCAP_ROOT, Wanted


def energy(
    powercap_root: Annotated[
        Path, typer.Option(help="where the powercap tree is mounted", metavar="FOLDER")
    ] = POWERCAP_ROOT,
    json: Annotated[bool, typer.Option("--json", help="print JSON instead of the table")] = False,
) -> None:
    """List the energy counters of this machine, how finely they count, and what keeps others away.

    Exits with 5 where there is none at all.
    """
    from pytest_nnscale.options import powercap_root as checked
    from pytest_nnscale.report.energy import energy_lines, energy_table

    if powercap_root != POWERCAP_ROOT:
        checked(str(powercap_root))
    found = look_around(Wanted(powercap_root=powercap_root), _gpus())
    if json:
        print(jsons.dumps(energy_table(found), indent=1))
    else:
        for line in energy_lines(found):
            print(line)
    if not any(finding.counters for finding in found):
        raise typer.Exit(Exit.NOTHING)


def _gpus() -> int:
    """Return the number of GPUs that torch sees, or NVML where torch was built without CUDA."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.device_count()
    import pynvml

    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0
