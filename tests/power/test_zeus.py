"""The package zeus: what it counts, behind the same protocol, and why it does not."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pytest_nnscale.errors import CannotMeasure, NothingThere
from pytest_nnscale.power import zeus
from pytest_nnscale.power.zeus import find_zeus


@dataclass
class CpuDramMeasurement:
    """As zeus.device.cpu.common has it."""

    cpu_mj: float
    dram_mj: float | None = None


class Cpu:
    """As zeus.device.cpu.common.CPU."""

    def __init__(self, cpu_index: int, dram_mj: float | None = None) -> None:
        self.cpu_index = cpu_index
        self.told = CpuDramMeasurement(1000.0 * (cpu_index + 1), dram_mj)

    def get_total_energy_consumption(self) -> CpuDramMeasurement:
        return self.told

    def supports_get_dram_energy_consumption(self) -> bool:
        return self.told.dram_mj is not None


class Gpus:
    """As zeus.device.gpu.common.GPUs."""

    def __init__(self, *told_mj: int | None) -> None:
        self.told_mj = told_mj

    def supports_get_total_energy_consumption(self, gpu_index: int) -> bool:
        return self.told_mj[gpu_index] is not None

    def get_total_energy_consumption(self, gpu_index: int) -> int:
        told_mj = self.told_mj[gpu_index]
        if told_mj is None:
            raise RuntimeError("not supported")
        return told_mj

    def get_name(self, gpu_index: int) -> str:
        return f"AMD Instinct {gpu_index}"


class AppleSilicon:
    """As zeus.device.soc.apple.AppleSilicon, whose measurement may lack fields."""

    def __init__(self, **fields_mj: float | None) -> None:
        self.told = SimpleNamespace(**fields_mj)

    def get_total_energy_consumption(self) -> Any:
        return self.told


class ZeusSoCInitError(Exception):
    """As zeus.device.soc.common has it."""


def put(
    monkeypatch: pytest.MonkeyPatch, *, cpus: Any = None, gpus: Any = None, chip: Any = None
) -> None:
    """Put a package zeus where imports look; what it lacks raises as the real one does."""

    def getter(found: Any, words: str) -> Any:
        def get() -> Any:
            if found is None:
                raise ZeusSoCInitError(words)
            return found

        return get

    modules = {
        "zeus": {},
        "zeus.device": {},
        "zeus.device.cpu": {"get_cpus": getter(cpus and SimpleNamespace(cpus=cpus), "no RAPL")},
        "zeus.device.gpu": {"get_gpus": getter(gpus, "no AMDSMI")},
        "zeus.device.soc": {"get_soc": getter(chip, "no SoC")},
    }
    for name, holds in modules.items():
        module = ModuleType(name)
        module.__path__ = []  # type: ignore[attr-defined]
        vars(module).update(holds)
        monkeypatch.setitem(sys.modules, name, module)


def test_the_cpus_and_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through zeusd or by itself, which zeus decides."""
    put(monkeypatch, cpus=[Cpu(0, 250.0), Cpu(1)])
    counters = find_zeus("cpu")
    assert [counter.name for counter in counters] == ["zeus CPU 0", "zeus CPU 0 dram", "zeus CPU 1"]
    assert [counter.read_j() for counter in counters] == [1.0, 0.25, 2.0]
    assert {counter.device for counter in counters} == {"cpu"}
    with counters[0].running():
        assert counters[0].resolution_s == 0.1


@pytest.mark.parametrize("daemon", [False, True], ids=["by itself", "through zeusd"])
def test_psys_is_no_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, daemon: bool) -> None:
    """Zeus has a CPU for each zone of the first level, and this one contains the package."""
    monkeypatch.setattr(zeus, "POWERCAP_ROOT", tmp_path)
    cpus = [Cpu(0), Cpu(1)]
    for cpu, name in zip(cpus, ("package-0", "psys"), strict=True):
        (tmp_path / f"intel-rapl:{cpu.cpu_index}").mkdir()
        (tmp_path / f"intel-rapl:{cpu.cpu_index}/name").write_text(f"{name}\n")
        if not daemon:
            cpu.rapl_file = SimpleNamespace(name=name)  # type: ignore[attr-defined]
    put(monkeypatch, cpus=cpus)
    assert [counter.name for counter in find_zeus("cpu")] == ["zeus CPU 0"]


def test_an_import_that_fails_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """It imports libraries of vendors, which have errors of their own."""

    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name.startswith("zeus"):
                raise OSError("libamd_smi.so: cannot open")

    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(CannotMeasure, match="zeus cannot be imported: OSError: libamd_smi"):
        find_zeus("cuda")


def test_the_real_package_has_what_is_read_of_it() -> None:
    """Where it is installed: fields that were renamed would be counters that are not there."""
    common = pytest.importorskip("zeus.device.cpu.common", reason="the extra zeus is not installed")
    gpus = pytest.importorskip("zeus.device.gpu.common").GPUs
    apple = pytest.importorskip("zeus.device.soc.apple").AppleSiliconMeasurement
    assert {"cpu_mj", "dram_mj"} <= set(common.CpuDramMeasurement.__dataclass_fields__)
    assert {"cpu_total_mj", "dram_mj", "gpu_mj", "gpu_sram_mj"} <= set(apple.__dataclass_fields__)
    assert all(
        hasattr(gpus, name)
        for name in (
            "supports_get_total_energy_consumption",
            "get_total_energy_consumption",
            "get_name",
        )
    )


@pytest.mark.parametrize(("device", "joules"), [("cuda", 1.5), ("cuda:0", 1.5), ("cuda:1", 2.5)])
def test_a_gpu(monkeypatch: pytest.MonkeyPatch, device: str, joules: float) -> None:
    """By the number that CUDA and ROCm give it."""
    put(monkeypatch, gpus=Gpus(1500, 2500))
    (counter,) = find_zeus(device)
    assert counter.read_j() == joules
    assert counter.name == f"zeus AMD Instinct {device[5:] or 0}"


def test_a_gpu_without_a_counter_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is another one's taken."""
    put(monkeypatch, gpus=Gpus(1500, None))
    with pytest.raises(CannotMeasure, match="zeus finds no counter of cuda:1"):
        find_zeus("cuda:1")


@pytest.mark.parametrize(
    ("device", "fields_mj", "names"),
    [
        (
            "cpu",
            {"cpu_total_mj": 1, "dram_mj": 2, "gpu_mj": 4, "gpu_sram_mj": 8},
            ["cpu_total", "dram"],
        ),
        ("cpu", {"cpu_total_mj": 1, "dram_mj": None}, ["cpu_total"]),
        (
            "mps",
            {"cpu_total_mj": 1, "dram_mj": 2, "gpu_mj": 4, "gpu_sram_mj": 8},
            ["gpu", "gpu_sram"],
        ),
        ("cpu", {"cpu_energy_mj": 3, "gpu_energy_mj": 5, "total_energy_mj": 9}, ["cpu_energy"]),
        ("cuda", {"cpu_energy_mj": 3, "gpu_energy_mj": 5, "total_energy_mj": 9}, ["gpu_energy"]),
    ],
)
def test_a_system_on_a_chip(
    monkeypatch: pytest.MonkeyPatch, device: str, fields_mj: dict[str, float], names: list[str]
) -> None:
    """Apple's and Jetson's: of all it tells, what the device is."""
    put(monkeypatch, chip=AppleSilicon(**fields_mj))
    counters = find_zeus(device)
    assert [counter.name for counter in counters] == [f"zeus AppleSilicon {name}" for name in names]
    assert [counter.read_j() for counter in counters] == [
        fields_mj[f"{name}_mj"] / 1000 for name in names
    ]


def test_a_device_that_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its CPUs' joules are none of an xpu."""
    put(monkeypatch, cpus=[Cpu(0)], gpus=Gpus(1))
    with pytest.raises(CannotMeasure, match="zeus finds no counter of xpu") as caught:
        find_zeus("xpu")
    assert caught.value.remedy == "ask zeus: python -m zeus.show_env"


def test_each_back_end_gives_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its own words."""
    put(monkeypatch)
    with pytest.raises(CannotMeasure) as caught:
        find_zeus("cpu")
    assert caught.value.reason == (
        "zeus finds no counter of cpu: ZeusSoCInitError: no SoC; ZeusSoCInitError: no RAPL"
    )


def test_a_counter_that_is_lost_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that ended is no zero."""
    cpu = Cpu(0)
    put(monkeypatch, cpus=[cpu])
    (counter,) = find_zeus("cpu")

    def lost() -> None:
        raise ConnectionError("zeusd is gone")

    monkeypatch.setattr(cpu, "get_total_energy_consumption", lost)
    with pytest.raises(CannotMeasure) as caught:
        counter.read_j()
    assert caught.value.reason == "zeus CPU 0 cannot be read: ConnectionError: zeusd is gone"
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_where_it_is_not_installed_the_remedy_can_be_pasted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "zeus", None)
    with pytest.raises(CannotMeasure) as caught:
        find_zeus("cpu")
    assert caught.value.reason == "the package zeus is not installed"
    assert caught.value.remedy == "pip install 'pytest-nnscale[zeus]'"
    assert isinstance(caught.value, NothingThere)


def test_it_is_not_imported_where_rapl_is_there(tmp_path: Path) -> None:
    """In a process of its own, with a zeus that must not be touched."""
    zone = tmp_path / "tree/intel-rapl:0"
    zone.mkdir(parents=True)
    for file, text in (
        ("name", "package-0"),
        ("energy_uj", "1"),
        ("max_energy_range_uj", "1000000"),
    ):
        (zone / file).write_text(text)
    (tmp_path / "zeus").mkdir()
    (tmp_path / "zeus/__init__.py").write_text("raise SystemExit('zeus was imported')")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from pathlib import Path\n"
        "from pytest_nnscale.power.sources import find_counters\n"
        "from pytest_nnscale.power.wanted import Wanted\n"
        f"wanted = Wanted(powercap_root=Path({str(zone.parent)!r}))\n"
        "print(find_counters('cpu', wanted)[0].name, 'zeus' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["RAPL", "package-0", "False"], done.stderr
