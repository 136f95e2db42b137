"""What a time was measured on: processor, GPU, threads and torch, and nothing that jitters."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

_CPUINFO = Path("/proc/cpuinfo")
_CGROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


class Fingerprint(NamedTuple):
    """What makes two times comparable; `gpu` is "" for what runs on the CPU alone."""

    cpu: str
    cores: float
    threads: int
    gpu: str
    torch: str

    def __str__(self) -> str:
        where = [f"{self.cpu}, {self.threads} of {self.cores:g} cores", self.gpu, self.torch]
        return "; ".join(part for part in where if part)


def take_fingerprint(device: str = "cpu") -> Fingerprint:
    """Take the fingerprint of this machine as this process sees it, for work on a device."""
    import torch

    kind, _, index = device.partition(":")
    gpu = ""
    if kind not in ("cpu", "meta"):
        backend: Any = getattr(torch, kind, None)
        asked = () if not index else (int(index),)
        gpu = str(backend.get_device_name(*asked)) if hasattr(backend, "get_device_name") else kind
    vectors = torch.backends.cpu.get_cpu_capability()
    return Fingerprint(
        f"{_cpu_name()} ({vectors})",
        _cores(),
        torch.get_num_threads(),
        gpu,
        f"torch {torch.__version__}",
    )


def _cores() -> float:
    """Return how many cores this process may use: fewer than there are where it is bound or capped.

    A container may be given the time of one and a half.
    """
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    least = min([count, *_quotas()])
    return int(least) if least == int(least) else least


def _quotas() -> Iterator[float]:
    """Yield to how many cores' time each control group caps what runs in it, in Linux.

    Source: kernel.org, Control Group v2, cpu.max; and CFS bandwidth control for version 1.
    """
    for folder, names in (("", ("cpu.max",)), ("cpu", ("cpu.cfs_quota_us", "cpu.cfs_period_us"))):
        for group in _groups(_CGROUPS / folder, folder):
            with suppress(OSError, ValueError):  # no group, or no cap: "max", or below zero
                told = " ".join((group / name).read_text(encoding="ascii") for name in names)
                quota, period = (float(number) for number in told.split())
                if quota > 0 and period > 0:
                    yield quota / period


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folder of this process's control group, and of all groups around it."""
    yield root
    with suppress(OSError):
        for line in _OWN_GROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                inside = root / path.lstrip("/")
                yield from (each for each in (inside, *inside.parents) if root in each.parents)


def _cpu_name() -> str:
    """Return the model of the processor, as its maker calls it where that can be found out."""
    if platform.system() == "Darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        try:
            return subprocess.run(
                command, capture_output=True, text=True, check=True
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return platform.machine()
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return _named_in(lines) or platform.processor() or platform.machine()


def _named_in(lines: Iterable[str]) -> str:
    """Return the name in the first processor's paragraph; those of ARM have only numbers."""
    told: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if not colon and told:
            break
        told.setdefault(key.strip().lower(), " ".join(value.split()))
    numbers = [told[key] for key in ("cpu implementer", "cpu part") if key in told]
    return told.get("model name", "") or " ".join(numbers)
