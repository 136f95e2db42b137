"""What this machine can do at most, and which share of it a few workloads reach.

    python benchmarks/timing/roofline.py [--device cpu] [--again] [--max-time 5]

Prints the ceilings (products of each dtype, bytes moved at sizes from a megabyte to what no cache
holds), then for a product of matrices, resnet18 with random weights, one layer of a language model that
decodes a token, and an elementwise model: the time of a call, the time at best with the bound that
makes it, and the efficiency with its interval. Ceilings come from the user's cache where they were
measured before; `--again` measures them once more, and keeps the higher ones. Exits with 1 where an
efficiency could not be measured, or its whole interval is more than a tenth above its ceiling.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.progress import track
from torch import nn

from pytest_nnscale.ceiling.probes import LARGEST_MOVE, SMALLEST_MOVE
from pytest_nnscale.ceiling.roofline import DTYPES, Roofline
from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.fingerprint import take_fingerprint
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters.effort import Effort
from pytest_nnscale.meters.table import measure
from pytest_nnscale.observing import observe
from pytest_nnscale.units import BYTES, FLOP, Dimension, format_quantity
from pytest_nnscale.workload import Workload

_ABOVE = 1.1
_ROW = "{:<34}  {:>22}"


class Elementwise(nn.Module):
    """Moves bytes, and contracts nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add one to each number."""
        return x + 1


def resnet18() -> nn.Module:
    """Build it from torchvision, which is an extra: nothing is downloaded."""
    from torchvision import models

    return models.resnet18().eval()


WORKLOADS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "product 1024x1024x1024, float32": (lambda: nn.Linear(1024, 1024), (1024, 1024), "float32"),
    "product 1024x1024x1024, bfloat16": (lambda: nn.Linear(1024, 1024), (1024, 1024), "bfloat16"),
    "resnet18, one image": (resnet18, (1, 3, 224, 224), "float32"),
    "4096x4096 weights, one token": (lambda: nn.Linear(4096, 4096), (1, 4096), "float32"),
    "elementwise, 16 MB in and out": (Elementwise, (1 << 22,), "float32"),
    "elementwise, 256 MB in and out": (Elementwise, (1 << 26,), "float32"),
}


def print_ceilings(roofline: Roofline) -> None:
    """Print every ceiling; what the device cannot do is said."""
    for dtype in DTYPES:
        print_ceiling(f"products of {dtype}", partial(roofline.flops_per_s, "product", dtype), FLOP)
    size = SMALLEST_MOVE
    while size <= LARGEST_MOVE:
        name = f"bytes, {size >> 20} MiB and up to twice that"
        print_ceiling(name, partial(roofline.bytes_per_s, size), BYTES)
        size *= 4
    print()


def print_ceiling(name: str, ask: Callable[[], float], dimension: Dimension) -> None:
    """Print one ceiling, or why there is none."""
    try:
        rate = f"{format_quantity(ask(), dimension)}/s"
    except CannotMeasure as error:
        rate = error.reason
    print(_ROW.format(name, rate))


def efficiency_of(name: str, device: str, effort: Effort) -> Measurement:
    """Measure the efficiency of one workload."""
    build, shape, dtype = WORKLOADS[name]
    kind = getattr(torch, dtype)
    model = build().to(device=device, dtype=kind)
    x = torch.rand(shape, device=device).to(kind)
    return measure(Metric.EFFICIENCY, observe(Workload(model, (x,)), runs=True), effort=effort)


def print_efficiency(name: str, found: Measurement) -> bool:
    """Print one row, and tell whether it is plausible."""
    if found.value is None or found.lower is None:
        print(f"{name:<34}  unmeasured: {found.reason}")
        return False
    upper = f"{found.upper:.1%}" if found.upper is not None else "?"
    print(f"{name:<34}  {found.value:>6.1%} ({found.lower:.1%} to {upper})")
    for note in found.notes:
        print(f"  {note}")
    return found.lower <= _ABOVE


def main() -> int:
    """Print ceilings and efficiencies."""
    parser: Any = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--again", action="store_true", help="measure the ceilings once more")
    parser.add_argument("--max-time", type=float, default=5.0, help="seconds for each workload")
    args = parser.parse_args()
    torch.manual_seed(0)
    print(take_fingerprint(args.device), end="\n\n")
    roofline = Roofline(args.device)
    if args.again:
        roofline.measure_again()
    print_ceilings(roofline)
    effort = Effort(args.max_time)
    found = {
        name: efficiency_of(name, args.device, effort)
        for name in track(WORKLOADS, "measuring", transient=True)
    }
    plausible = [print_efficiency(name, each) for name, each in found.items()]
    return 0 if all(plausible) else 1


if __name__ == "__main__":
    sys.exit(main())
