"""NVML: which GPU is opened, and what the driver's errors become."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml as real
import pytest
import torch

from pytest_nnscale.errors import CannotMeasure, NothingThere
from pytest_nnscale.power.nvml import open_gpu, vendor_errors
from tests.power.conftest import ERRORS, H100, LOST, NO_PERMISSION, OLD, SLICE, Driver


def test_the_fake_driver_speaks_like_the_real_one() -> None:
    """Same functions, same codes, same words: else the tests below show nothing."""
    for name in vars(Driver):
        if name.startswith("nvml"):
            assert callable(getattr(real, name))
    for code, words in ERRORS.items():
        assert str(real.NVMLError(code)) == words
        assert isinstance(real.NVMLError(code), real.NVMLError)


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


def test_without_a_word_of_torch_the_number_counts(driver: Driver, torch_knows: list[str]) -> None:
    """As where it was built without CUDA."""
    assert open_gpu("cuda:0") == H100


def test_a_gpu_that_nvml_does_not_know_is_not_taken_for_the_first(
    driver: Driver, torch_knows: list[str]
) -> None:
    """CUDA counts in another order, and one that is idle would keep any budget."""
    torch_knows += ["of-nobody"]
    with pytest.raises(NothingThere, match="NVML knows no GPU of-nobody, on which torch computes"):
        open_gpu("cuda:0")


def test_an_error_of_the_gpu_that_torch_means_is_not_passed_over(
    driver: Driver, torch_knows: list[str]
) -> None:
    """The next one that answers is another GPU."""
    torch_knows += [H100.removeprefix("GPU-")]
    driver.failing["nvmlDeviceGetHandleByUUID"] = LOST
    with pytest.raises(driver.NVMLError):
        open_gpu("cuda:0")


def test_the_start_of_a_uuid_is_enough_where_it_is_one_gpus(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for CUDA."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-89")
    assert open_gpu("cuda:0") == H100
    for start, told in (("GPU-", "4 GPUs"), ("GPU-77", "no GPU"), ("-1", "no GPU")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", start)
        with pytest.raises(CannotMeasure, match=f"{start}', by which NVML knows {told}"):
            open_gpu("cuda:0")


@pytest.mark.parametrize("visible", [None, "0,1"])
def test_without_a_uuid_the_gpu_goes_by_its_bus(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, visible: str | None
) -> None:
    """Which torch knows as well, in the order of CUDA."""
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    place = SimpleNamespace(pci_domain_id=0, pci_bus_id=0xB1, pci_device_id=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _index: place)
    assert open_gpu("cuda:0") == "GPU-2"


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


CODES = {
    name: value
    for name, value in vars(real).items()
    if name.startswith("NVML_ERROR_") and isinstance(value, int)
}


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_an_error_of_the_driver_is_a_reason_with_a_remedy(driver: Driver, code: int) -> None:
    """In the driver's own words, whichever it is."""
    driver.failing["nvmlInit"] = code
    with (
        pytest.raises(CannotMeasure) as caught,
        vendor_errors("NVML gives nothing"),
    ):
        open_gpu("cuda:0")
    assert caught.value.reason == f"NVML gives nothing: {real.NVMLError(code)}"
    assert caught.value.remedy
    # A driver that is not there is no fault; a GPU that is lost is one.
    assert isinstance(caught.value, NothingThere) == (code in (3, 4, 9, 12, 13))
    assert isinstance(caught.value.__cause__, driver.NVMLError)


def test_opening_alone_lets_the_drivers_errors_pass(driver: Driver) -> None:
    """Who opens it says what is missing then."""
    driver.failing["nvmlDeviceGetHandleByIndex"] = NO_PERMISSION
    with pytest.raises(driver.NVMLError):
        open_gpu("cuda:0")


def test_mistakes_that_are_not_the_drivers_pass_through(driver: Driver) -> None:
    """A bug is no word of the driver."""
    with pytest.raises(KeyError), vendor_errors("NVML gives nothing"):
        raise KeyError
