"""The search for counters: each device has its source, or a reason for having none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.power import nvml, rapl
from pytest_nnscale.power.counter import POWERCAP_ROOT, FakeCounter, find_counters


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a powercap tree with one package that has used three joules."""
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for file, text in (("name", "package-0"), ("energy_uj", "3000000")):
        (zone / file).write_text(f"{text}\n")
    (zone / "max_energy_range_uj").write_text("1000000000\n")
    return tmp_path


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_the_cpu_is_counted_by_rapl(package: Path, device: str) -> None:
    """With all that the protocol of a counter asks for."""
    (counter,) = find_counters(device, powercap_root=package)
    assert (counter.name, counter.device) == ("RAPL package-0", "cpu")
    assert counter.read_j() == pytest.approx(3.0)
    assert 0 < counter.resolution_j < 1e-3


def test_the_cpu_is_the_default(package: Path) -> None:
    """As everywhere."""
    assert find_counters(powercap_root=package) == find_counters("cpu", powercap_root=package)


def test_the_tree_is_the_kernels_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set up to measure a CPU."""
    asked: list[Path] = []
    monkeypatch.setattr(rapl, "find_rapl", lambda root: (asked.append(root), ())[1])
    find_counters("cpu")
    assert asked == [POWERCAP_ROOT] == [Path("/sys/class/powercap")]


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_is_counted_by_nvml(
    monkeypatch: pytest.MonkeyPatch, package: Path, device: str
) -> None:
    """Its own number arrives there, and the CPU's counter is none of its."""
    asked: list[str] = []
    monkeypatch.setattr(nvml, "find_nvml", lambda device: (asked.append(device), ("it",))[1])
    assert find_counters(device, powercap_root=package) == ("it",)
    assert asked == [device]


@pytest.mark.parametrize(
    ("device", "kind"), [("mps", "mps"), ("xpu:1", "xpu"), ("meta", "meta"), ("", "")]
)
def test_another_device_has_no_counter(package: Path, device: str, kind: str) -> None:
    """The CPU's joules are not those of a model that ran elsewhere."""
    with pytest.raises(CannotMeasure) as caught:
        find_counters(device, powercap_root=package)
    assert caught.value.reason == f"no energy counter is known for {kind} devices"
    assert caught.value.remedy == "measure on a CPU with RAPL or an NVIDIA GPU"


def test_no_tree_is_a_reason(tmp_path: Path) -> None:
    """The caller is told, and gets no empty list to sum up to zero."""
    with pytest.raises(CannotMeasure, match="no RAPL zone under"):
        find_counters("cpu", powercap_root=tmp_path / "absent")


def test_a_cpu_needs_no_nvml(monkeypatch: pytest.MonkeyPatch, package: Path) -> None:
    """Its import would load a driver for nothing."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert len(find_counters("cpu", powercap_root=package)) == 1


def test_the_fake_counter_is_its_power_over_time_in_full_steps() -> None:
    """It never runs ahead of the energy, and less than a step behind."""
    times = iter([0.0, 0.04, 0.05, 0.06, 1.0])
    counter = FakeCounter(20.0, lambda: next(times), resolution_j=1.0)
    assert [counter.read_j() for _ in range(5)] == [0.0, 0.0, 1.0, 1.0, 20.0]
