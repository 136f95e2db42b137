"""Everything else: AMD GPUs, Apple silicon, Jetson, and RAPL through zeusd, by the package `zeus`.

Source: https://ml.energy/zeus, its modules device.gpu, device.cpu and device.soc. All of them count in
millijoules since some fixed moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from pytest_nnscale.errors import CannotMeasure, NothingThere
from pytest_nnscale.power.wanted import POWERCAP_ROOT

# It does not tell how often its counters move; the slowest that it knows do ten times a second.
_UPDATE_S = 0.1
_INSTALL = "pip install 'pytest-nnscale[zeus]'"
_ASK = "ask zeus: python -m zeus.show_env"
# What counts for a device, of the fields that a system on a chip has: Apple's first, then Jetson's.
_ON_A_CHIP = {
    "cpu": (("cpu_total_mj", "dram_mj"), ("cpu_energy_mj",)),
    "mps": (("gpu_mj", "gpu_sram_mj"),),
    "cuda": (("gpu_energy_mj",),),
}


@dataclass
class ZeusCounter:
    """One counter that zeus reads."""

    name: str
    device: str
    millijoules: Callable[[], float]
    resolution_j: float = 1e-3
    resolution_s: float = _UPDATE_S
    lag_s: float = 0.0
    notes: tuple[str, ...] = ()

    def read_j(self) -> float:
        """Return joules; CannotMeasure where it is lost."""
        try:
            return self.millijoules() / 1000
        except Exception as error:
            raise CannotMeasure(
                f"{self.name} cannot be read: {_words(error)}", remedy=_ASK
            ) from error

    def running(self) -> AbstractContextManager[Any]:
        """Zeus starts by itself what it needs."""
        return nullcontext()


def find_zeus(device: str) -> tuple[ZeusCounter, ...]:
    """Return the counters that zeus has of a device; NothingThere says why there are none."""
    try:
        import zeus.device  # noqa: F401 - whether it is there
    except ModuleNotFoundError as error:
        raise NothingThere("the package zeus is not installed", remedy=_INSTALL) from error
    except Exception as error:
        raise CannotMeasure(f"zeus cannot be imported: {_words(error)}", remedy=_ASK) from error
    kind, _, index = device.partition(":")
    found, reasons = [], []
    for find in (_on_a_chip, _gpu if kind == "cuda" else _cpus if kind == "cpu" else None):
        if find is None:
            continue
        try:
            found = list(find(kind, int(index or 0)))
        except Exception as error:  # each of its back ends has errors of its own
            reasons.append(_words(error))
        if found:
            return tuple(found)
    raise NothingThere(
        f"zeus finds no counter of {device}: {'; '.join(reasons) or 'it knows none'}", remedy=_ASK
    )


def _on_a_chip(kind: str, _index: int) -> Sequence[ZeusCounter]:
    from zeus.device.soc import get_soc

    chip = get_soc()
    told = chip.get_total_energy_consumption()
    for fields in _ON_A_CHIP.get(kind, ()):
        there = [field for field in fields if getattr(told, field, None) is not None]
        if there:
            return [_of_chip(chip, kind, field) for field in there]
    return []


def _of_chip(chip: Any, kind: str, field: str) -> ZeusCounter:
    name = f"zeus {type(chip).__name__} {field.removesuffix('_mj')}"
    return ZeusCounter(
        name, kind, lambda: float(getattr(chip.get_total_energy_consumption(), field))
    )


def _cpus(_kind: str, _index: int) -> Sequence[ZeusCounter]:
    from zeus.device.cpu import get_cpus

    found = []
    for cpu in get_cpus().cpus:
        # Zeus takes every zone of the first level for a CPU; psys is what contains them.
        if _zone_of(cpu).startswith("psys"):
            continue
        name = f"zeus CPU {cpu.cpu_index}"
        found.append(ZeusCounter(name, "cpu", _reader(cpu, "cpu_mj")))
        if cpu.supports_get_dram_energy_consumption():
            found.append(ZeusCounter(f"{name} dram", "cpu", _reader(cpu, "dram_mj")))
    return found


def _zone_of(cpu: Any) -> str:
    """Return the name of a CPU's zone, by zeus or, where a daemon reads it, by the kernel's tree."""
    file = getattr(cpu, "rapl_file", None)
    if file is not None:
        return str(file.name)
    with suppress(OSError):
        return (POWERCAP_ROOT / f"intel-rapl:{cpu.cpu_index}" / "name").read_text().strip()
    return ""


def _reader(cpu: Any, field: str) -> Callable[[], float]:
    return lambda: float(getattr(cpu.get_total_energy_consumption(), field))


def _gpu(_kind: str, index: int) -> Sequence[ZeusCounter]:
    from zeus.device.gpu import get_gpus

    gpus = get_gpus()
    if not gpus.supports_get_total_energy_consumption(index):
        raise NothingThere(f"{gpus.get_name(index)} counts no energy")
    name = f"zeus {gpus.get_name(index)}"
    return [
        ZeusCounter(name, f"cuda:{index}", lambda: float(gpus.get_total_energy_consumption(index)))
    ]


def _words(error: BaseException) -> str:
    if isinstance(error, NothingThere):
        return error.reason
    return f"{type(error).__name__}: {error}"
