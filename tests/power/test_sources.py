"""The search for counters: each device has its sources, or a reason for having none."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_nnscale.errors import CannotMeasure, NothingThere
from pytest_nnscale.options import SOURCES
from pytest_nnscale.power import nvml_energy, rapl, zeus
from pytest_nnscale.power.counter import FakeCounter
from pytest_nnscale.power.sources import find_counters, look_around
from pytest_nnscale.power.wanted import POWERCAP_ROOT, Wanted


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a powercap tree with one package that has used three joules."""
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for file, text in (("name", "package-0"), ("energy_uj", "3000000")):
        (zone / file).write_text(f"{text}\n")
    (zone / "max_energy_range_uj").write_text("1000000000\n")
    return tmp_path


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Say whether the package zeus is there."""
    find_spec = importlib.util.find_spec

    def installed(there: bool) -> None:
        def find(name: str, *rest: object) -> object:
            return (there or None) if name == "zeus" else find_spec(name, *rest)

        monkeypatch.setattr(importlib.util, "find_spec", find)

    installed(False)
    return installed


@pytest.fixture(autouse=True)
def _no_zeus(installed: Callable[[bool], None]) -> None:
    """Leave out what this machine has."""


def counters_named(*names: str) -> tuple[FakeCounter, ...]:
    return tuple(FakeCounter(1.0, lambda: 0.0, name=name) for name in names)


def names_of(device: str, wanted: Wanted) -> list[str]:
    return [counter.name for counter in find_counters(device, wanted)]


def failing(reason: str, kind: type[CannotMeasure] = CannotMeasure) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise kind(reason, remedy=f"mend {reason}")

    return fail


def nothing_there(reason: str) -> Callable[..., None]:
    return failing(reason, NothingThere)


@pytest.mark.parametrize("source", ["auto", "rapl"])
@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_the_cpu_is_counted_by_rapl(package: Path, device: str, source: str) -> None:
    """With all that the protocol of a counter asks for."""
    (counter,) = find_counters(device, Wanted(source, powercap_root=package))
    assert (counter.name, counter.device) == ("RAPL package-0", "cpu")
    assert counter.read_j() == pytest.approx(3.0)
    assert 0 < counter.resolution_j < 1e-3


def test_the_tree_is_the_kernels_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is set up to measure a CPU."""
    asked: list[Path] = []
    monkeypatch.setattr(rapl, "find_rapl", lambda root: (asked.append(root), ())[1])
    find_counters("cpu", Wanted())
    assert asked == [POWERCAP_ROOT] == [Path("/sys/class/powercap")]


@pytest.mark.parametrize("source", ["auto", "nvml"])
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_is_counted_by_nvml(
    monkeypatch: pytest.MonkeyPatch, package: Path, device: str, source: str
) -> None:
    """Its own number arrives there, and the CPU's counter is none of its."""
    asked: list[str] = []
    monkeypatch.setattr(nvml_energy, "find_nvml", lambda device: (asked.append(device), ("it",))[1])
    assert find_counters(device, Wanted(source, powercap_root=package)) == ("it",)
    assert asked == [device]


def test_the_whole_machine_is_the_gpu_and_the_cpu(
    monkeypatch: pytest.MonkeyPatch, package: Path
) -> None:
    """The CPU alone is the machine where nothing else works."""
    monkeypatch.setattr(nvml_energy, "find_nvml", lambda device: counters_named(device))
    machine = Wanted(scope="machine", powercap_root=package)
    assert names_of("cuda:1", machine) == ["cuda:1", "RAPL package-0"]
    assert names_of("cpu", machine) == ["RAPL package-0"]


def test_half_a_machine_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A GPU without the CPU would be too few joules, and pass."""
    monkeypatch.setattr(nvml_energy, "find_nvml", lambda device: counters_named(device))
    with pytest.raises(CannotMeasure, match="no RAPL zone under"):
        find_counters("cuda", Wanted(scope="machine", powercap_root=tmp_path))


@pytest.mark.parametrize("device", ["mps", "xpu:1", "meta", ""])
def test_another_device_has_no_counter(package: Path, device: str) -> None:
    """The CPU's joules are not those of a model that ran elsewhere."""
    with pytest.raises(CannotMeasure) as caught:
        find_counters(device, Wanted(powercap_root=package))
    kind = device.partition(":")[0]
    assert caught.value.reason == f"no energy counter of {kind} devices is known here"
    assert caught.value.remedy.startswith("pip install 'pytest-nnscale[zeus]'")
    assert isinstance(caught.value, NothingThere)


@pytest.mark.parametrize(
    ("source", "device", "scope", "counts"),
    [
        ("rapl", "cuda", "device", "cpu"),
        ("nvml", "cpu", "device", "cuda"),
        ("nvml", "cpu", "machine", "cuda"),
        ("nvml", "mps", "machine", "cuda"),
        ("rapl", "mps", "device", "cpu"),
        ("estimate", "cuda:1", "device", "cpu"),
    ],
)
def test_a_source_counts_no_other_device(
    package: Path, source: str, device: str, scope: str, counts: str
) -> None:
    """It is not taken for the one that does, and the machine lacks nothing."""
    with pytest.raises(CannotMeasure) as caught:
        find_counters(device, Wanted(source, scope, powercap_root=package, watts_per_core=8.0))
    assert caught.value.reason == (
        f"nnscale_energy_source={source} counts joules of {counts} devices alone, and this runs on "
        f"{device}"
    )
    assert caught.value.remedy.endswith("nnscale_energy_source=auto")
    assert not isinstance(caught.value, NothingThere)


def test_a_source_that_was_named_is_said_to_be_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where it is not, the machine is not as its owner says: no reason to skip a test."""
    monkeypatch.setattr(zeus, "find_zeus", nothing_there("not installed"))
    for source, reason in (("rapl", "no RAPL zone under"), ("zeus", "not installed")):
        with pytest.raises(
            CannotMeasure, match=f"source={source} was asked for: {reason}"
        ) as caught:
            find_counters("cpu", Wanted(source, powercap_root=tmp_path))
        assert not isinstance(caught.value, NothingThere)
    with pytest.raises(NothingThere, match=r"^no RAPL zone under"):
        find_counters("cpu", Wanted(powercap_root=tmp_path))


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("nvml", ["nvml", "RAPL package-0"]),
        ("rapl", ["nvml", "RAPL package-0"]),
        ("estimate", ["nvml", "estimate: CPU time x 8 W a core"]),
        ("zeus", ["zeus cuda", "zeus cpu"]),
    ],
)
def test_a_source_of_one_half_of_the_machine_leaves_the_other_to_its_own(
    monkeypatch: pytest.MonkeyPatch, package: Path, source: str, names: list[str]
) -> None:
    """Whoever names NVML for a GPU has said nothing of the CPU."""
    monkeypatch.setattr(nvml_energy, "find_nvml", lambda device: counters_named("nvml"))
    monkeypatch.setattr(zeus, "find_zeus", lambda device: counters_named(f"zeus {device}"))
    wanted = Wanted(source, "machine", powercap_root=package, watts_per_core=8.0)
    assert names_of("cuda", wanted) == names


def test_no_tree_is_a_reason(tmp_path: Path) -> None:
    """The caller is told, and gets no empty list to sum up to zero."""
    with pytest.raises(CannotMeasure, match="no RAPL zone under"):
        find_counters("cpu", Wanted(powercap_root=tmp_path / "absent"))


def test_a_cpu_needs_no_nvml(monkeypatch: pytest.MonkeyPatch, package: Path) -> None:
    """Its import would load a driver for nothing."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert len(find_counters("cpu", Wanted(powercap_root=package))) == 1


def test_zeus_is_not_asked_where_rapl_is_there(
    monkeypatch: pytest.MonkeyPatch, package: Path, installed: Callable[[bool], None]
) -> None:
    """Not even imported, though it is installed."""
    installed(True)
    monkeypatch.setattr(zeus, "find_zeus", lambda _device: pytest.fail("zeus was asked"))
    monkeypatch.setitem(sys.modules, "zeus", None)
    assert names_of("cpu", Wanted(powercap_root=package)) == ["RAPL package-0"]


@pytest.mark.parametrize("device", ["cpu", "cuda:1", "mps"])
def test_zeus_is_asked_where_nothing_else_is_there(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    installed: Callable[[bool], None],
    device: str,
) -> None:
    """Where it is installed."""
    installed(True)
    monkeypatch.setattr(nvml_energy, "find_nvml", failing("no driver"))
    monkeypatch.setattr(zeus, "find_zeus", lambda device: counters_named(f"zeus {device}"))
    assert names_of(device, Wanted(powercap_root=tmp_path)) == [f"zeus {device}"]


def test_each_source_that_failed_gives_its_reason(
    monkeypatch: pytest.MonkeyPatch, installed: Callable[[bool], None]
) -> None:
    """And the first of them what to do."""
    installed(True)
    monkeypatch.setattr(nvml_energy, "find_nvml", failing("no driver"))
    monkeypatch.setattr(zeus, "find_zeus", failing("no chip"))
    with pytest.raises(CannotMeasure) as caught:
        find_counters("cuda", Wanted())
    assert (caught.value.reason, caught.value.remedy) == ("no driver; no chip", "mend no driver")
    with pytest.raises(CannotMeasure, match=r"^no chip$"):
        find_counters("mps", Wanted())


@pytest.mark.parametrize(("faulty", "kind"), [("nvml", CannotMeasure), ("", NothingThere)])
def test_a_fault_is_not_taken_for_a_machine_that_has_none(
    monkeypatch: pytest.MonkeyPatch,
    installed: Callable[[bool], None],
    faulty: str,
    kind: type[CannotMeasure],
) -> None:
    """A GPU that is lost had a counter."""
    installed(True)
    found = failing if faulty == "nvml" else nothing_there
    monkeypatch.setattr(nvml_energy, "find_nvml", found("GPU is lost"))
    monkeypatch.setattr(zeus, "find_zeus", nothing_there("no AMD GPU"))
    with pytest.raises(CannotMeasure, match="GPU is lost; no AMD GPU") as caught:
        find_counters("cuda", Wanted())
    assert type(caught.value) is kind


def test_zeus_that_was_asked_for_is_the_one(monkeypatch: pytest.MonkeyPatch, package: Path) -> None:
    """Beside a RAPL that would do."""
    monkeypatch.setattr(zeus, "find_zeus", lambda device: counters_named("zeus"))
    assert names_of("cpu", Wanted("zeus", powercap_root=package)) == ["zeus"]


def test_an_estimate_is_never_chosen_by_itself(tmp_path: Path) -> None:
    """Also where all that it takes was stated, and nothing else is there."""
    with pytest.raises(CannotMeasure, match="no RAPL zone"):
        find_counters("cpu", Wanted(watts_per_core=8.0, powercap_root=tmp_path))
    wanted = Wanted("estimate", watts_per_core=8.0, powercap_root=tmp_path)
    assert names_of("cpu", wanted) == ["estimate: CPU time x 8 W a core"]


def test_every_source_that_is_named_exists(monkeypatch: pytest.MonkeyPatch, package: Path) -> None:
    """A name that nothing stands behind would be a KeyError in the middle of a run."""
    monkeypatch.setattr(zeus, "find_zeus", lambda device: counters_named("zeus"))
    for source in SOURCES:
        device = "cuda" if source == "nvml" else "cpu"
        monkeypatch.setattr(nvml_energy, "find_nvml", lambda device: counters_named("nvml"))
        assert find_counters(device, Wanted(source, powercap_root=package, watts_per_core=8.0))


def test_a_list_has_every_source_with_its_counters_or_why_not(
    monkeypatch: pytest.MonkeyPatch, package: Path
) -> None:
    """For each GPU, and for "cuda" where there is none: why is told too."""
    monkeypatch.setattr(nvml_energy, "find_nvml", failing("no driver"))
    monkeypatch.setattr(zeus, "find_zeus", failing("not installed"))
    wanted = Wanted(powercap_root=package)
    found = {(each.source, each.device): each for each in look_around(wanted, 0)}
    assert list(found) == [
        ("rapl", "cpu"),
        ("nvml", "cuda"),
        ("zeus", "cpu"),
        ("zeus", "mps"),
        ("zeus", "cuda"),
    ]
    assert [counter.name for counter in found["rapl", "cpu"].counters] == ["RAPL package-0"]
    missing = found["nvml", "cuda"]
    assert (missing.counters, missing.reason, missing.remedy) == ((), "no driver", "mend no driver")
    for source in ("nvml", "zeus"):
        devices = [each.device for each in look_around(wanted, 2) if each.source == source]
        assert [each for each in devices if each[:4] == "cuda"] == ["cuda:0", "cuda:1"]
