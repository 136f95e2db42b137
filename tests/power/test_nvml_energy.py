"""Joules by NVML: the counter of a GPU, or its power, summed up; and what is lost."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pynvml as real
import pytest

from pytest_nnscale.errors import CannotMeasure, NothingThere
from pytest_nnscale.power import nvml_energy
from pytest_nnscale.power.nvml_energy import NvmlCounter, NvmlPower, find_nvml
from tests.power.conftest import (
    ERRORS,
    H100,
    LOST,
    NO_DRIVER,
    NO_LIBRARY,
    NO_PERMISSION,
    NOT_SUPPORTED,
    OLD,
    SLICE,
    Driver,
)


def test_millijoules_become_joules(driver: Driver) -> None:
    """Every reading is the driver's, of the GPU that was opened, in steps of a millijoule."""
    (counter,) = find_nvml("cuda:0")
    assert counter.read_j() == 1.5
    driver.energy_mj[H100] = 2_001
    assert counter.read_j() == 2.001
    assert counter.resolution_j == 1e-3


def test_the_counter_is_named_for_its_gpu(driver: Driver) -> None:
    """A reader of a report sees what was measured."""
    (counter,) = find_nvml("cuda:0")
    assert (counter.name, counter.device) == ("NVML NVIDIA H100 80GB HBM3", "cuda:0")


@pytest.mark.parametrize(
    ("function", "code"),
    [
        ("nvmlInit", NO_LIBRARY),
        ("nvmlInit", NO_DRIVER),
        ("nvmlDeviceGetHandleByIndex", NO_PERMISSION),
        ("nvmlDeviceGetName", LOST),
        ("nvmlDeviceGetTotalEnergyConsumption", NO_PERMISSION),
    ],
)
def test_an_error_of_the_driver_is_a_reason_with_a_remedy(
    driver: Driver, function: str, code: int
) -> None:
    """In the driver's own words, whichever step it refuses."""
    driver.failing[function] = code
    with pytest.raises(CannotMeasure) as caught:
        find_nvml("cuda:0")
    assert caught.value.reason == f"NVML gives no energy: {ERRORS[code]}"
    assert caught.value.remedy
    assert isinstance(caught.value.__cause__, driver.NVMLError)
    assert isinstance(caught.value, NothingThere) == (code != LOST)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cuda:3", "Not Supported"),
        ("cuda:9", "Invalid Argument"),
    ],
    ids=["neither counter nor power", "no such number"],
)
def test_a_gpu_without_the_counter_is_told_when_it_is_looked_for(
    driver: Driver, device: str, words: str
) -> None:
    """Not after seconds of work whose energy nobody counted."""
    with pytest.raises(CannotMeasure, match=f"NVML gives no energy: {words}"):
        find_nvml(device)


def test_a_gpu_that_is_lost_later_says_so(driver: Driver) -> None:
    """A reading that fails is no zero."""
    (counter,) = find_nvml("cuda:0")
    driver.failing["nvmlDeviceGetTotalEnergyConsumption"] = LOST
    with pytest.raises(CannotMeasure, match="NVML gives no energy: GPU is lost"):
        counter.read_j()


def test_mistakes_that_are_not_the_drivers_pass_through(driver: Driver) -> None:
    """A bug is not a missing counter."""
    driver.energy_mj = {}
    with pytest.raises(KeyError):
        find_nvml("cuda:0")


def test_the_real_library_without_a_driver_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on every machine without an NVIDIA GPU."""
    try:
        real.nvmlInit()
    except real.NVMLError as error:
        words = str(error)
    else:
        real.nvmlShutdown()
        pytest.skip("this machine has the driver")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(CannotMeasure) as caught:
        find_nvml("cuda:0")
    assert caught.value.reason == f"NVML gives no energy: {words}"
    assert isinstance(caught.value, NothingThere)


def test_a_counter_that_goes_back_is_no_number(driver: Driver) -> None:
    """The driver was loaded anew: what was used before is not known."""
    (counter,) = find_nvml("cuda:0")
    assert counter.read_j() == 1.5
    driver.energy_mj[H100] = 1_499
    with pytest.raises(CannotMeasure) as caught:
        counter.read_j()
    assert caught.value.reason == (
        "the counter of NVML NVIDIA H100 80GB HBM3 went back from 1.5 J to 1.499 J: "
        "the driver was loaded anew, or the GPU reset"
    )


def test_a_slice_is_counted_as_the_whole_gpu_and_says_so(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no counter of its own."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", SLICE)
    (counter,) = find_nvml("cuda:0")
    assert isinstance(counter, NvmlCounter)
    assert counter.handle == H100
    assert counter.notes == ("of the whole GPU, the other slices of it (MIG) included",)


def test_a_whole_gpu_has_nothing_to_say(driver: Driver) -> None:
    """Also by a driver that knows of no slices."""
    assert find_nvml("cuda:0")[0].notes == ()
    driver.failing["nvmlDeviceIsMigDeviceHandle"] = NOT_SUPPORTED
    assert find_nvml("cuda:0")[0].notes == ()


def test_a_gpu_without_a_counter_has_its_power_summed_up(driver: Driver) -> None:
    """And the note says what that is worth."""
    (counter,) = find_nvml("cuda:1")
    assert isinstance(counter, NvmlPower)
    assert counter.name == f"NVML power of the GPU {OLD}"
    assert "average it over 1 s" in counter.notes[-1]
    assert counter.lag_s == 1.0
    with counter.running():
        until_s = time.monotonic() + 10
        while counter.read_j() == 0:
            assert time.monotonic() < until_s
            time.sleep(0.005)


def test_power_between_two_questions_is_the_mean_of_both(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """15 J in the first tenth of a second, 6.25 J in the next twentieth."""
    (counter,) = find_nvml("cuda:1")
    assert isinstance(counter, NvmlPower)
    times, watts = iter([0.1, 0.15]), iter([100.0, 200.0, 50.0])
    monkeypatch.setattr(nvml_energy, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    monkeypatch.setattr(counter, "_watts", lambda: next(watts))
    stops = iter([False, False, True])
    counter._sum_up(SimpleNamespace(wait=lambda _s: next(stops)))  # type: ignore[arg-type]
    assert counter._joules == pytest.approx(15.0 + 6.25)
    assert counter._lost is None


@pytest.mark.parametrize("gap_s", [0.099, 0.101])
def test_power_that_was_not_asked_for_long_is_no_measurement(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, gap_s: float
) -> None:
    """A call that holds Python's lock lets the thread ask between calls alone, when the GPU rests."""
    (counter,) = find_nvml("cuda:1")
    assert isinstance(counter, NvmlPower)
    counter._sums = True
    monkeypatch.setattr(nvml_energy, "time", SimpleNamespace(perf_counter=lambda: gap_s))
    if gap_s < counter.resolution_s:
        assert counter.read_j() == 0
        return
    with pytest.raises(
        CannotMeasure, match=r"was not asked for during 0\.1 s: the call let no other"
    ):
        counter.read_j()
    stops = iter([False, True])
    counter._sum_up(SimpleNamespace(wait=lambda _s: next(stops)))  # type: ignore[arg-type]
    assert counter._joules == 0
    assert counter._lost is not None


def test_a_mistake_while_it_sums_up_is_not_a_counter_that_stands(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends the thread is told at the next reading."""
    (counter,) = find_nvml("cuda:1")
    monkeypatch.setattr(counter, "_watts", lambda: {}["mW"])
    with counter.running():
        until_s = time.monotonic() + 10
        while time.monotonic() < until_s and counter._lost is None:  # type: ignore[union-attr]
            time.sleep(0.005)
        with pytest.raises(CannotMeasure, match="could not be summed up: KeyError: 'mW'"):
            counter.read_j()


def test_an_old_library_without_the_counter_has_its_power(driver: Driver) -> None:
    """As a GPU that has none."""
    driver.failing["nvmlDeviceGetTotalEnergyConsumption"] = 13
    driver.power_mw[H100] = 300_000
    (counter,) = find_nvml("cuda:0")
    assert counter.name == "NVML power of NVIDIA H100 80GB HBM3"


def test_a_gpu_that_is_cut_into_slices_says_so(driver: Driver) -> None:
    """Also where torch names the whole of it: others are at work on the rest."""
    driver.cut = {H100}
    (counter,) = find_nvml("cuda:0")
    assert counter.notes == ("of the whole GPU, the other slices of it (MIG) included",)


def test_the_counter_states_how_rarely_it_moves(driver: Driver) -> None:
    """By which an update between two looks is known to be no older."""
    (counter,) = find_nvml("cuda:0")
    assert (counter.resolution_s, counter.lag_s) == (0.1, 0.0)


def test_power_is_summed_up_only_while_it_runs(driver: Driver) -> None:
    """A reading before or after is no standstill."""
    (counter,) = find_nvml("cuda:1")
    for _ in range(2):
        with pytest.raises(CannotMeasure, match="is not being summed up"):
            counter.read_j()
        with counter.running():
            counter.read_j()


def test_a_gpu_that_is_lost_while_its_power_is_summed_up_says_so(driver: Driver) -> None:
    """At the next reading, in the thread that reads."""
    (counter,) = find_nvml("cuda:1")
    with counter.running():
        counter.read_j()
        driver.failing["nvmlDeviceGetPowerUsage"] = LOST
        until_s = time.monotonic() + 10
        while counter._lost is None and time.monotonic() < until_s:  # type: ignore[union-attr]
            time.sleep(0.005)
        with pytest.raises(CannotMeasure, match="NVML gives no power: GPU is lost"):
            counter.read_j()
