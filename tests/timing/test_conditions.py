"""What a GPU was like while it was measured, by a driver that stands for NVML."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pynvml as real
import pytest
import torch

from pytest_nnscale.timing import conditions as room
from pytest_nnscale.timing.conditions import GpuWatch, Watch, conditions

WORDS = {3: "Not Supported", 6: "Not Found", 9: "Driver Not Loaded", 15: "GPU is lost"}
NOT_SUPPORTED, _, NO_DRIVER, LOST = WORDS
REASONS = [n for n in vars(real) if n.startswith("nvmlClocksThrottleReason")]
CONSTANTS = (
    *REASONS,
    *(n for n in vars(real) if n.startswith("NVML_PERF_POLICY_")),
    "NVML_CLOCK_SM",
    "NVML_CLOCK_MEM",
    "NVML_TEMPERATURE_GPU",
)


class Driver(ModuleType):
    """A module that stands for pynvml: one GPU, whose state the tests set."""

    class NVMLError(Exception):
        def __init__(self, value: int) -> None:
            super().__init__(value)
            self.value = value

        def __str__(self) -> str:
            return WORDS[self.value]

    def __init__(self) -> None:
        super().__init__("pynvml")
        for name in CONSTANTS:
            setattr(self, name, getattr(real, name))
        self.sm_mhz, self.memory_mhz, self.celsius, self.reasons = 1980, 2619, 41, 0
        self.throttled_ns: dict[int, int] = {}
        self.failing: dict[str, int] = {}
        self.opened = self.closed = self.reads = 0

    def _check(self, function: str) -> None:
        if function in self.failing:
            raise self.NVMLError(self.failing[function])

    def nvmlInit(self) -> None:  # noqa: N802
        self._check("nvmlInit")
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self._check("nvmlShutdown")
        self.closed += 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        self._check("nvmlDeviceGetHandleByIndex")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        raise self.NVMLError(6)  # a real one's, which this driver does not know

    def nvmlDeviceGetClockInfo(self, handle: int, clock: int) -> int:  # noqa: N802
        self._check("nvmlDeviceGetClockInfo")
        self.reads += 1
        return {real.NVML_CLOCK_SM: self.sm_mhz, real.NVML_CLOCK_MEM: self.memory_mhz}[clock]

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:  # noqa: N802
        self._check("nvmlDeviceGetTemperature")
        assert sensor == real.NVML_TEMPERATURE_GPU
        return self.celsius

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:  # noqa: N802
        self._check("nvmlDeviceGetCurrentClocksThrottleReasons")
        return self.reasons

    def nvmlDeviceGetViolationStatus(self, handle: int, policy: int) -> Any:  # noqa: N802
        self._check("nvmlDeviceGetViolationStatus")
        return SimpleNamespace(referenceTime=0, violationTime=self.throttled_ns.get(policy, 0))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Put a fake driver where pynvml is imported from, with every GPU visible."""
    fake = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


def test_the_fake_driver_speaks_like_the_real_one() -> None:
    """Same functions, same words, same fields: else the tests below show nothing."""
    for name in vars(Driver):
        if name.startswith("nvml"):
            assert callable(getattr(real, name))
    for code, words in WORDS.items():
        assert str(real.NVMLError(code)) == words == str(Driver.NVMLError(code))
    fields = [name for name, _ in real.c_nvmlViolationTime_t._fields_]
    assert fields == ["referenceTime", "violationTime"]


def test_every_reason_of_nvml_is_a_throttle_or_known_for_none() -> None:
    """A new one of the library's is decided on here, not forgotten."""
    none = {"All", "None", "GpuIdle", "ApplicationsClocksSetting", "UserDefinedClocks"}
    # The display's clocks are a choice too; the highest voltage is where a GPU is fastest.
    none |= {"DisplayClockSetting", "Reliability", "BoardLimit"}
    known = {name.removeprefix("nvmlClocksThrottleReason") for name in REASONS}
    assert known == none | set(room._REASONS)


def test_clocks_and_temperature_are_noted_from_before_to_after(driver: Driver) -> None:
    """As a range where they moved."""
    with conditions("cuda:0") as watch:
        driver.sm_mhz, driver.celsius = 1755, 63
    assert watch.notes == (
        "GPU: SM clock 1755 to 1980 MHz, memory clock 2619 MHz, temperature 41 to 63 °C",
    )
    assert watch.disturbed == ""


@pytest.mark.parametrize(
    ("reasons", "words"),
    [
        (["SwPowerCap"], "power cap"),
        (["SwThermalSlowdown"], "thermal slowdown"),
        (["HwThermalSlowdown", "SwThermalSlowdown"], "thermal slowdown"),
        (["SwPowerCap", "SwThermalSlowdown"], "power cap, thermal slowdown"),
        (["HwSlowdown", "HwPowerBrakeSlowdown"], "power brake, hardware slowdown"),
        (["SyncBoost", "GpuIdle"], "sync boost"),
    ],
)
@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_a_gpu_that_throttles_disturbs(
    driver: Driver, reasons: list[str], words: str, when: str
) -> None:
    """At whichever look it is seen, and each reason is told once."""
    bits = sum(getattr(real, f"nvmlClocksThrottleReason{name}") for name in reasons)
    driver.reasons = bits if when == "before" else 0
    with conditions("cuda:0") as watch:
        if when == "between":
            driver.reasons = bits
            watch.look()
        driver.reasons = bits if when == "after" else 0
    assert watch.disturbed == f"the GPU throttled ({words})"


def test_what_disturbed_has_a_remedy_that_is_no_more_time(driver: Driver) -> None:
    """A GPU that is too hot is no cooler in a longer run."""
    with conditions("cuda:0") as watch:
        assert watch.remedy == ""
        driver.reasons = real.nvmlClocksThrottleReasonSwThermalSlowdown
    assert watch.remedy.startswith("let the GPU cool down")
    assert "max-time" not in watch.remedy


def test_a_look_tells_what_disturbed_since_the_last_one(driver: Driver) -> None:
    """So that whoever needs a calm moment can find one after another that was not."""
    with conditions("cuda:0") as watch:
        driver.reasons = real.nvmlClocksThrottleReasonSwPowerCap
        assert watch.look() == "the GPU throttled (power cap)"
        driver.reasons = 0
        assert watch.look() == ""
    assert watch.disturbed == "the GPU throttled (power cap)"


@pytest.mark.parametrize("name", ["GpuIdle", "ApplicationsClocksSetting", "DisplayClockSetting"])
def test_idle_clocks_and_chosen_ones_disturb_nothing(driver: Driver, name: str) -> None:
    """They are the same the next time."""
    driver.reasons = getattr(real, f"nvmlClocksThrottleReason{name}")
    with conditions("cuda:0") as watch:
        pass
    assert watch.disturbed == ""


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("POWER", "power cap"),
        ("THERMAL", "thermal slowdown"),
        ("SYNC_BOOST", "sync boost"),
        ("BOARD_LIMIT", "board limit"),
    ],
)
def test_what_happened_between_two_looks_is_seen(driver: Driver, policy: str, words: str) -> None:
    """The GPU has cooled down again by the second, but its counter has moved."""
    which = getattr(real, f"NVML_PERF_POLICY_{policy}")
    driver.throttled_ns[which] = 7 * 10**12  # of all the time since it was switched on
    with conditions("cuda:0") as watch:
        driver.throttled_ns[which] += 10**9
    assert watch.disturbed == f"the GPU throttled ({words})"


@pytest.mark.parametrize(
    ("gained_ns", "disturbs"), [(0, False), (9 * 10**6, False), (2 * 10**7, True)]
)
def test_a_moment_of_throttling_moves_no_median(
    driver: Driver, gained_ns: int, disturbs: bool
) -> None:
    """Less than a hundredth of the time between two looks; here that is a second."""
    now_s = iter([5.0, 6.0])
    watch = GpuWatch("cuda:0", now_s=lambda: next(now_s))
    watch.look()
    driver.throttled_ns[real.NVML_PERF_POLICY_POWER] = gained_ns
    watch.look()
    assert bool(watch.disturbed) is disturbs


@pytest.mark.parametrize("policy", ["LOW_UTILIZATION", "RELIABILITY", "TOTAL_BASE_CLOCKS"])
def test_other_counters_are_not_of_throttling(driver: Driver, policy: str) -> None:
    """Too little work, the highest voltage, and sums."""
    with conditions("cuda:0") as watch:
        driver.throttled_ns[getattr(real, f"NVML_PERF_POLICY_{policy}")] = 10**12
    assert watch.disturbed == ""


def test_what_nvml_does_not_tell_is_said_and_hides_nothing_else(driver: Driver) -> None:
    """A GPU without a counter still has a temperature."""
    driver.failing = {
        "nvmlDeviceGetViolationStatus": NOT_SUPPORTED,
        "nvmlDeviceGetClockInfo": NOT_SUPPORTED,
    }
    driver.reasons = real.nvmlClocksThrottleReasonSwPowerCap
    with conditions("cuda:0") as watch:
        pass
    assert watch.notes == (
        "GPU: temperature 41 °C",
        "NVML does not tell everything: SM clock: Not Supported; memory clock: Not Supported; "
        "time spent throttled: Not Supported",
    )
    assert watch.disturbed == "the GPU throttled (power cap)"


def test_a_gpu_that_is_lost_meanwhile_is_said(driver: Driver) -> None:
    """What was seen before stays."""
    with conditions("cuda:0") as watch:
        for name in vars(Driver):
            if name.startswith("nvmlDevice"):
                driver.failing[name] = LOST
    assert watch.notes[0] == "GPU: SM clock 1980 MHz, memory clock 2619 MHz, temperature 41 °C"
    assert "throttle reasons: GPU is lost" in watch.notes[1]


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetHandleByIndex"])
def test_without_a_driver_a_note_says_what_is_not_known(driver: Driver, function: str) -> None:
    """Nothing is raised: the time is a time all the same."""
    driver.failing[function] = NO_DRIVER
    with conditions("cuda:0") as watch:
        watch.look()
    assert watch.notes == ("whether the GPU throttled is not known: NVML: Driver Not Loaded",)
    assert watch.disturbed == ""


def test_the_gpu_that_is_watched_is_the_one_that_is_visible(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA_VISIBLE_DEVICES hides it: another job's clocks are none of ours."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with conditions("cuda:1") as watch:
        pass
    assert watch.notes[0].endswith("cuda:1 is not among CUDA_VISIBLE_DEVICES=3")


@pytest.mark.parametrize("device", ["cpu", "mps", "meta"])
def test_only_gpus_of_nvidia_are_watched(driver: Driver, device: str) -> None:
    """Nothing is opened for any other device."""
    with conditions(device) as watch:
        watch.look()
    assert (watch.notes, watch.disturbed) == ((), "")
    assert type(watch) is Watch
    assert driver.opened == 0


def test_an_error_of_the_measured_code_passes_and_nvml_is_closed(driver: Driver) -> None:
    """It is looked at a last time, and let go of."""

    def measure() -> None:
        with conditions("cuda:0"):
            raise ValueError("the model's own")

    with pytest.raises(ValueError, match="own"):
        measure()
    assert driver.reads == 4
    assert driver.opened == driver.closed == 1


def test_a_driver_that_cannot_be_closed_is_let_be(driver: Driver) -> None:
    """All has been told by then."""
    driver.failing["nvmlShutdown"] = LOST
    with conditions("cuda:0") as watch:
        pass
    assert watch.notes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_real_driver_tells_clocks_and_temperature() -> None:
    """Of a GPU that multiplies matrices for a moment."""
    a = torch.randn(4096, 4096, device="cuda")
    with conditions("cuda") as watch:
        for _ in range(50):
            a @ a
        torch.cuda.synchronize()
        watch.look()
    assert watch.notes[0].startswith("GPU: SM clock ")
    assert " °C" in watch.notes[0]
