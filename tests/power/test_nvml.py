"""NVML: which GPU is opened, and what the driver's errors become."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pynvml as real
import pytest
import torch

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.power.nvml import open_gpu, vendor_errors

H100 = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
OLD = "GPU-0aa00f2c-2b45-a2a5-8d1b-0e5f6d1a6f77"
SLICE = "MIG-1c9c8d7a-5d5f-5f0e-8f1a-7b1f6a2f3c4d"

ERRORS = {
    1: "Uninitialized",
    2: "Invalid Argument",
    3: "Not Supported",
    4: "Insufficient Permissions",
    6: "Not Found",
    9: "Driver Not Loaded",
    12: "NVML Shared Library Not Found",
    15: "GPU is lost",
}
UNINITIALIZED, INVALID, _, NO_PERMISSION, NOT_FOUND, *_ = ERRORS


class Driver(ModuleType):
    """A module that stands for pynvml: GPUs in the order of their buses, and error codes."""

    class NVMLError(Exception):
        def __init__(self, value: int) -> None:
            super().__init__(value)
            self.value = value

        def __str__(self) -> str:
            return ERRORS[self.value]

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.uuids = [H100, OLD, "GPU-2", "GPU-3"]
        self.failing: dict[str, int] = {}
        self.initialized = False

    def _check(self, function: str) -> None:
        if function in self.failing:
            raise self.NVMLError(self.failing[function])
        if not self.initialized and function != "nvmlInit":
            raise self.NVMLError(UNINITIALIZED)

    def nvmlInit(self) -> None:  # noqa: N802
        self._check("nvmlInit")
        self.initialized = True

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        self._check("nvmlDeviceGetHandleByIndex")
        if not 0 <= index < len(self.uuids):
            raise self.NVMLError(INVALID)
        return self.uuids[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        self._check("nvmlDeviceGetHandleByUUID")
        if uuid not in [*self.uuids, SLICE]:
            raise self.NVMLError(NOT_FOUND)
        return uuid


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Put a fake driver where pynvml is imported from, with every GPU visible."""
    fake = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


def test_the_fake_driver_speaks_like_the_real_one() -> None:
    """Same functions, same codes, same words: else the tests below show nothing."""
    for name in vars(Driver):
        if name.startswith("nvml"):
            assert callable(getattr(real, name))
    for code, words in ERRORS.items():
        assert str(real.NVMLError(code)) == words
        assert isinstance(real.NVMLError(code), real.NVMLError)
        assert str(Driver.NVMLError(code)) == words


@pytest.mark.parametrize(
    ("visible", "device", "uuid"),
    [
        (None, "cuda:0", H100),
        (None, "cuda:2", "GPU-2"),
        ("2", "cuda:0", "GPU-2"),
        ("3,2", "cuda:0", "GPU-3"),
        ("3,2", "cuda:1", "GPU-2"),
        (" 3 , 0 ", "cuda:1", H100),
        (f"GPU-3,{H100}", "cuda:1", H100),
        (f"2,{H100}", "cuda:0", "GPU-2"),
        (SLICE, "cuda:0", SLICE),
    ],
)
def test_cuda_visible_devices_renumbers(
    driver: Driver,
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    device: str,
    uuid: str,
) -> None:
    """CUDA's number is a place in that list; its entries are NVML's numbers or UUIDs."""
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert open_gpu(device) == uuid


@pytest.mark.parametrize(
    ("available", "current", "uuid"), [(True, 2, "GPU-2"), (True, 0, H100), (False, 2, H100)]
)
def test_cuda_without_a_number_is_the_current_one(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, available: bool, current: int, uuid: str
) -> None:
    """The one that torch computes on, and the first where torch has none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
    assert open_gpu("cuda") == uuid


@pytest.fixture
def torch_knows(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the UUIDs of the GPUs as torch numbers them, which a test sets."""
    uuids: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=uuids[index])
    )
    return uuids


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
@pytest.mark.parametrize("visible", [None, "0", "0,1"])
def test_the_gpu_that_is_read_is_the_one_that_torch_computes_on(
    driver: Driver,
    torch_knows: list[str],
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    device: str,
) -> None:
    """CUDA has the fastest first, NVML the one on the first bus."""
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    driver.uuids = [OLD, H100]
    torch_knows += [H100.removeprefix("GPU-"), OLD.removeprefix("GPU-")]
    assert open_gpu(device) == H100


def test_a_slice_of_a_gpu_goes_by_its_own_uuid(driver: Driver, torch_knows: list[str]) -> None:
    """And never for another one, whose counter is not its own."""
    torch_knows += [SLICE.removeprefix("MIG-")]
    assert open_gpu("cuda:0") == SLICE


@pytest.mark.parametrize("uuid", [[], ["of-nobody"]], ids=["no such GPU", "an unknown UUID"])
def test_without_a_uuid_that_nvml_knows_the_number_counts(
    driver: Driver, torch_knows: list[str], uuid: list[str]
) -> None:
    """As where torch is told nothing by its driver."""
    torch_knows += uuid
    assert open_gpu("cuda:0") == H100


@pytest.mark.parametrize(("visible", "device"), [("", "cuda:0"), ("0,2", "cuda:2"), (",", "cuda")])
def test_a_gpu_that_is_hidden_has_no_counter(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, visible: str, device: str
) -> None:
    """NVML would show it all the same: reading it would be another job's energy."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(CannotMeasure) as caught:
        open_gpu(device)
    index = device.partition(":")[2] or "0"
    assert caught.value.reason == f"cuda:{index} is not among CUDA_VISIBLE_DEVICES={visible}"
    assert caught.value.remedy == "measure on a GPU that is visible"


@pytest.mark.parametrize("code", ERRORS)
def test_an_error_of_the_driver_is_a_reason_with_a_remedy(driver: Driver, code: int) -> None:
    """In the driver's own words, whichever it is."""
    driver.failing["nvmlInit"] = code
    with (
        pytest.raises(CannotMeasure) as caught,
        vendor_errors("NVML gives nothing", remedy="check it"),
    ):
        open_gpu("cuda:0")
    assert caught.value.reason == f"NVML gives nothing: {ERRORS[code]}"
    assert caught.value.remedy == "check it"
    assert isinstance(caught.value.__cause__, driver.NVMLError)


def test_opening_alone_lets_the_drivers_errors_pass(driver: Driver) -> None:
    """Who opens it says what is missing then."""
    driver.failing["nvmlDeviceGetHandleByIndex"] = NO_PERMISSION
    with pytest.raises(driver.NVMLError):
        open_gpu("cuda:0")


def test_mistakes_that_are_not_the_drivers_pass_through(driver: Driver) -> None:
    """A bug is no word of the driver."""
    with pytest.raises(KeyError), vendor_errors("NVML gives nothing", remedy="check it"):
        raise KeyError
