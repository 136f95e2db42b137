"""Joules of a GPU that is really there; skipped elsewhere, so these have to be run where one is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import pynvml
import pytest
import torch

from pytest_nnscale.measurement import Measurement
from pytest_nnscale.meters.energy import measure_energy
from pytest_nnscale.power.nvml import open_gpu
from pytest_nnscale.power.nvml_energy import NvmlCounter, NvmlPower, find_nvml

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]


def product(times: int = 1, size: int = 4096) -> Callable[[], None]:
    """Return so many products of two matrices, on the GPU."""
    a = torch.rand(size, size, device="cuda")

    def call() -> None:
        for _ in range(times):
            a @ a

    return call


def watts_of(found: Measurement, note: str) -> float:
    """Return the first number of a note of watts."""
    assert found.value is not None, found.reason
    return float(next(each for each in found.notes if each.startswith(note)).split()[1])


def test_nvml_opens_the_gpu_that_torch_computes_on() -> None:
    """By its UUID; a slice of one by its own."""
    uuid = pynvml.nvmlDeviceGetUUID(open_gpu("cuda:0"))
    told = str(torch.cuda.get_device_properties(0).uuid)
    assert uuid.removeprefix("GPU-").removeprefix("MIG-") == told


def test_products_draw_more_than_an_idle_gpu_and_no_more_than_its_limit() -> None:
    """By what the driver enforces."""
    found = measure_energy(product(), device="cuda", max_time_s=10)
    most_w = pynvml.nvmlDeviceGetEnforcedPowerLimit(open_gpu("cuda")) / 1000
    assert watts_of(found, "idle ") < watts_of(found, "mean ") <= 1.1 * most_w


def test_twice_the_work_is_twice_the_joules() -> None:
    """Within both intervals."""
    once = measure_energy(product(2), device="cuda", max_time_s=10)
    twice = measure_energy(product(4), device="cuda", max_time_s=10)
    assert once.lower is not None
    assert twice.lower is not None
    assert 2 * once.lower <= (twice.upper or 0) * 1.02
    assert twice.lower <= 2 * (once.upper or 0) * 1.02


def test_the_counter_moves_as_often_as_it_states() -> None:
    """Else updates between two looks would be taken for younger than they are."""
    (counter,) = find_nvml("cuda")
    if not isinstance(counter, NvmlCounter):
        pytest.skip("this GPU has no counter")
    call, moved_s, last_j, gaps_s = product(), time.perf_counter(), counter.read_j(), []
    until_s = moved_s + 5
    while (now_s := time.perf_counter()) < until_s:
        call()
        torch.cuda.synchronize()
        joules = counter.read_j()
        if joules != last_j:
            gaps_s.append(now_s - moved_s)
            last_j, moved_s = joules, now_s
    assert len(gaps_s) > 20
    assert max(gaps_s[1:]) <= 1.5 * counter.resolution_s


def test_power_that_is_summed_up_agrees_with_the_counter() -> None:
    """Over ten seconds of the same work, within a tenth."""
    (counter,) = find_nvml("cuda")
    if not isinstance(counter, NvmlCounter):
        pytest.skip("this GPU has no counter")
    power = NvmlPower(counter.handle, "cuda", "NVML power")
    by_counter = measure_energy(product(), counters=[counter], device="cuda", max_time_s=10)
    by_power = measure_energy(product(), counters=[power], device="cuda", max_time_s=10)
    assert by_power.value == pytest.approx(by_counter.value, rel=0.1)


def test_a_gpu_that_is_hidden_is_not_read() -> None:
    """NVML shows it all the same: reading it would be another job's energy."""
    code = (
        "from pytest_nnscale.power.nvml_energy import find_nvml\n"
        "from pytest_nnscale.errors import CannotMeasure\n"
        "try:\n    find_nvml('cuda:0')\nexcept CannotMeasure as error:\n    print(error)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cuda:0 is not among CUDA_VISIBLE_DEVICES=" in told.stdout
