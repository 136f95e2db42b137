"""What a warm profile() costs as batch, image and width grow: the same, while a forward grows.

    python benchmarks/peers/cost_curve.py [--rounds 5]

ResNet-18 over batches and image sizes, with weights on the CPU; and with all its widths times a
factor, and an MLP of four layers over widths, on meta. Each curve's settings are taken in turn in
each round, after one that is not timed, and the median counts. Beside it stands a real forward; once
one takes more than 2 s, larger settings have none, and what is on meta has none either. Exits with
1 where profile() takes more than 1.5 times the CPU time at the largest setting that it takes at the
smallest: CPU time, since what else the machine does is no part of it.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock, ResNet

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pytest_nnscale

MOST = 1.5
LONGEST_FORWARD_S = 2.0

Workload = tuple[nn.Module, Tensor]


class Curve(NamedTuple):
    """What grows, its settings from the smallest to the largest, and the workload of each."""

    name: str
    settings: tuple[int, ...]
    workload: Callable[[int], Workload]


class WideResNet18(ResNet):
    """ResNet-18 with every width times a factor."""

    def __init__(self, times: int) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2])
        self.conv1 = nn.Conv2d(3, 64 * times, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64 * times)
        self.inplanes = 64 * times
        self.layer1 = self._make_layer(BasicBlock, 64 * times, 2)
        for number, width in enumerate((128, 256, 512), 2):
            layer = self._make_layer(BasicBlock, width * times, 2, stride=2)
            setattr(self, f"layer{number}", layer)
        self.fc = nn.Linear(512 * times, 1000)


def of_images(model: nn.Module, setting: int, *, batch: bool) -> Workload:
    shape = (setting, 3, 224, 224) if batch else (1, 3, setting, setting)
    return model, torch.zeros(shape)


def of_width(times: int) -> Workload:
    with torch.device("meta"):
        return WideResNet18(times).eval(), torch.empty(1, 3, 224, 224)


def mlp(width: int) -> Workload:
    with torch.device("meta"):
        layers = [part for _ in range(4) for part in (nn.Linear(width, width), nn.ReLU())]
        return nn.Sequential(*layers).eval(), torch.empty(1, width)


def curves() -> tuple[Curve, ...]:
    model = resnet18().eval()
    return (
        Curve("batch", (1, 4, 16, 64, 256), partial(of_images, model, batch=True)),
        Curve("image", (64, 128, 256, 512, 1024), partial(of_images, model, batch=False)),
        Curve("times as wide", (1, 2, 4, 8, 16), of_width),
        Curve("MLP width", (64, 512, 4096, 65536), mlp),
    )


class Times(NamedTuple):
    """Seconds of every round: of profile(), of the CPU in it, of a real forward."""

    profile: list[float]
    cpu: list[float]
    forward: list[float]


def profiled(workload: Workload) -> tuple[float, float]:
    """Seconds of one profile, which computes nothing, and those of the CPU."""
    model, inputs = workload
    gc.collect()
    start, cpu = time.perf_counter(), time.process_time()
    found = pytest_nnscale.profile(model, args=(inputs,))
    taken = time.perf_counter() - start, time.process_time() - cpu
    assert found.method == "traced"
    return taken


def run(workload: Workload) -> float:
    """Seconds of one forward."""
    model, inputs = workload
    with torch.inference_mode():
        start = time.perf_counter()
        model(inputs)
        return time.perf_counter() - start


def in_turn(curve: Curve, rounds: int) -> dict[int, Times]:
    """Time profile() and a real forward at every setting, once in each round."""
    times = {setting: Times([], [], []) for setting in curve.settings}
    runs_up_to = curve.settings[-1]
    for turn in range(rounds + 1):
        for setting, found in times.items():
            workload = curve.workload(setting)
            seconds, cpu = profiled(workload)
            if turn:
                found.profile.append(seconds)
                found.cpu.append(cpu)
            if workload[1].is_meta or setting > runs_up_to:
                continue
            seconds = run(workload)
            if turn:
                found.forward.append(seconds)
            if seconds > LONGEST_FORWARD_S:
                runs_up_to = min(runs_up_to, setting - 1)
    return times


def shown(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.1f}" if seconds else "-"


def main() -> int:
    """Print a table of all curves; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    table = Table(title=f"median ms of {rounds} rounds, {torch.get_num_threads()} threads")
    for heading in ("", "setting", "profile()", "its CPU", "to the smallest", "forward"):
        table.add_column(heading, justify="right" if heading else "left")
    failed = False
    for curve in curves():
        times = in_turn(curve, rounds)
        smallest = statistics.median(times[curve.settings[0]].cpu)
        for setting, found in times.items():
            ratio = statistics.median(found.cpu) / smallest
            row = (shown(found.profile), shown(found.cpu), f"{ratio:.2f}", shown(found.forward))
            last = setting == curve.settings[-1]
            table.add_row(curve.name, str(setting), *row, end_section=last)
        failed |= ratio > MOST
    Console().print(table)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
