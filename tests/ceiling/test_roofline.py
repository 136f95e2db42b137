"""The roofline: the time that some work takes at best, and when a ceiling is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pytest_nnscale.ceiling import roofline as room
from pytest_nnscale.ceiling.roofline import Attainable, Roofline, ceilings_of
from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.fingerprint import Fingerprint
from pytest_nnscale.timing.clock import FakeClock

HERE = Fingerprint("a processor", 2, 2, "", "torch")
MB = 1 << 20


class Machine:
    """Rates that tests set, in place of the probes; it notes what was measured."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.products, self.convolutions = {"float32": 100e9, "bfloat16": 400e9}, 50e9
        self.moves: dict[int, float] = {}
        self.measured: list[str] = []
        self.folder = folder
        monkeypatch.setattr(room, "product_rate", self._product)
        monkeypatch.setattr(room, "convolution_rate", self._convolution)
        monkeypatch.setattr(room, "move_rate", self._move)

    def _product(self, dtype: str, **_: object) -> float:
        self.measured.append(f"product {dtype}")
        return self.products[dtype]

    def _convolution(self, dtype: str, **_: object) -> float:
        self.measured.append(f"convolution {dtype}")
        return self.convolutions

    def _move(self, nbytes: int, **_: object) -> float:
        self.measured.append(f"move {nbytes}")
        return self.moves.get(nbytes, 10e9)

    def roofline(self, device: str = "cpu") -> Roofline:
        return Roofline(device, store=ceilings_of(HERE, self.folder), clock=FakeClock([]))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """Return a machine of 100 GFLOP/s in float32, 400 in bfloat16, and 10 GB/s."""
    return Machine(monkeypatch, tmp_path)


def test_the_nearer_bound_is_the_longer_time(machine: Machine) -> None:
    """Neither can be beaten, and the two may go on at once."""
    found = machine.roofline().attainable({("product", "float32"): 10**9}, 10**9)
    assert found.compute_s == pytest.approx(0.01)
    assert found.memory_s == pytest.approx(0.1)
    assert found.seconds == found.memory_s
    assert Attainable(0.2, 0.1).seconds == 0.2


def test_contractions_of_several_dtypes_take_their_times_one_after_the_other(
    machine: Machine,
) -> None:
    """Each at the ceiling of its own: autocast leaves some in float32."""
    flops = {("product", "float32"): 10**9, ("product", "bfloat16"): 10**9}
    assert machine.roofline().attainable(flops, 0).seconds == pytest.approx(0.0125)


def test_no_bytes_and_no_flops_take_no_time_and_measure_nothing(machine: Machine) -> None:
    """A ceiling costs a second, and only what is needed is measured."""
    assert machine.roofline().attainable({}, 0).seconds == 0
    machine.roofline().attainable({("product", "float32"): 1}, 0)
    assert machine.measured == ["product float32"]


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn", "quint8"])
def test_a_dtype_without_a_ceiling_is_refused(machine: Machine, dtype: str) -> None:
    """Another's would be wrong, in whichever direction."""
    with pytest.raises(
        CannotMeasure, match=f"no ceiling for products of {dtype}, only for float32"
    ):
        machine.roofline().attainable({("product", dtype): 1}, 0)


def test_a_ceiling_is_measured_once_and_kept(machine: Machine) -> None:
    """In this process, and for the next."""
    first = machine.roofline()
    for _ in range(2):
        assert first.flops_per_s("product", "float32") == 100e9
    machine.products["float32"] = 1.0
    assert machine.roofline().flops_per_s("product", "float32") == 100e9
    assert machine.measured == ["product float32"]


def test_a_ceiling_that_cannot_be_stored_is_measured_each_time(machine: Machine) -> None:
    """And it is said why."""
    (machine.folder / "ceilings").write_text("")
    for _ in range(2):
        roofline = machine.roofline()
        assert roofline.flops_per_s("product", "float32") == 100e9
        assert roofline.trouble.startswith("it could not be stored")
    assert len(machine.measured) == 2


@pytest.mark.parametrize(("second", "kept"), [(300e9, 300e9), (30e9, 100e9)])
def test_measured_again_the_higher_ceiling_stays(
    machine: Machine, second: float, kept: float
) -> None:
    """The lower one was held up by something."""
    roofline = machine.roofline()
    roofline.flops_per_s("product", "float32")
    machine.products["float32"] = second
    roofline.measure_again()
    assert roofline.flops_per_s("product", "float32") == kept
    assert len(machine.measured) == 2
    assert machine.roofline().flops_per_s("product", "float32") == kept


def test_a_ceiling_stays_where_the_machine_is_too_busy_to_measure_it_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was found in a better moment; where none was, there is none."""
    roofline = machine.roofline()
    roofline.flops_per_s("product", "float32")

    def busy(*_: object, **__: object) -> float:
        raise CannotMeasure("too busy")

    monkeypatch.setattr(room, "product_rate", busy)
    roofline.measure_again()
    assert roofline.flops_per_s("product", "float32") == 100e9
    with pytest.raises(CannotMeasure, match="too busy"):
        roofline.flops_per_s("product", "bfloat16")


@pytest.mark.parametrize(
    ("nbytes", "sizes"),
    [
        (1, [MB]),
        (MB - 1, [MB]),
        (MB, [MB, 2 * MB]),
        (3 * MB, [2 * MB, 4 * MB]),
        (200 * MB, [128 * MB, 256 * MB]),
        (10**12, [256 * MB]),
    ],
)
def test_moving_is_measured_at_the_sizes_around(
    machine: Machine, nbytes: int, sizes: list[int]
) -> None:
    """Powers of two, from a megabyte to what no cache holds."""
    machine.roofline().bytes_per_s(nbytes)
    assert sorted(machine.measured) == sorted(f"move {size}" for size in sizes)


def test_the_faster_of_both_sizes_counts(machine: Machine) -> None:
    """Smaller ones may fit into a cache, and larger ones hide what an operator takes."""
    machine.moves = {2 * MB: 80e9, 4 * MB: 20e9, 8 * MB: 30e9}
    assert machine.roofline().bytes_per_s(3 * MB) == 80e9
    assert machine.roofline().bytes_per_s(5 * MB) == 30e9


def test_convolutions_have_the_ceiling_of_products_where_both_are_set_alike(
    machine: Machine,
) -> None:
    """One run fewer."""
    assert machine.roofline().flops_per_s("convolution", "float32") == 100e9
    assert machine.roofline().flops_per_s("convolution", "bfloat16") == 400e9
    assert machine.measured == ["product float32", "product bfloat16"]


def test_convolutions_have_their_own_where_they_are_set_otherwise(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CUDA, where cuDNN takes TensorFloat-32 for float32 unless told not to."""
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"  # else this shows nothing
    on_gpu = machine.roofline("cuda")
    assert on_gpu.flops_per_s("convolution", "float32") == 50e9
    assert on_gpu.flops_per_s("product", "float32") == 100e9
    assert machine.measured == ["convolution float32", "product float32"]


def test_another_precision_has_another_ceiling(machine: Machine) -> None:
    """float32 that is multiplied as bfloat16 is not float32."""
    before = torch.get_float32_matmul_precision()
    machine.roofline().flops_per_s("product", "float32")
    try:
        torch.set_float32_matmul_precision("medium")
        machine.products["float32"] = 300e9
        assert machine.roofline().flops_per_s("product", "float32") == 300e9
    finally:
        torch.set_float32_matmul_precision(before)
    assert machine.roofline().flops_per_s("product", "float32") == 100e9
