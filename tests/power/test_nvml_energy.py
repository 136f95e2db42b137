"""Joules by NVML: the counter of a GPU, or its power, summed up; and what is lost."""

from __future__ import annotations

import time

import pynvml as real
import pytest

from pytest_nnscale.errors import CannotMeasure
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

REMEDY = "check with nvidia-smi that the driver runs"


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
    assert caught.value.remedy == REMEDY
    assert isinstance(caught.value.__cause__, driver.NVMLError)


@pytest.mark.parametrize(
    ("visible", "device", "words"),
    [
        (None, "cuda:3", "Not Supported"),
        (None, "cuda:9", "Invalid Argument"),
        ("GPU-none", "cuda:0", "Not Found"),
        ("-1", "cuda:0", "Not Found"),
    ],
    ids=["neither counter nor power", "no such number", "no such UUID", "hidden by -1"],
)
def test_a_gpu_without_the_counter_is_told_when_it_is_looked_for(
    driver: Driver,
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    device: str,
    words: str,
) -> None:
    """Not after seconds of work whose energy nobody counted."""
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
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
    assert (caught.value.reason, caught.value.remedy) == (f"NVML gives no energy: {words}", REMEDY)


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
    with counter.running():
        begun_s, start_j = time.perf_counter(), counter.read_j()
        time.sleep(0.2)
        gained_j, lasted_s = counter.read_j() - start_j, time.perf_counter() - begun_s
    # What is between two questions is not known yet.
    assert 75.0 * (lasted_s - 0.1) < gained_j < 75.0 * (lasted_s + 0.1)


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
        time.sleep(0.3)
        with pytest.raises(CannotMeasure, match="NVML gives no power: GPU is lost"):
            counter.read_j()
