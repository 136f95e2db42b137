"""The real pynvml against a driver that is compiled here: whose joules are read, and how truly."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pytest_nnscale

SIMULATED = Path(__file__).parent / "simulated"
BIG = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
SLICE = "MIG-1c9c8d7a-5d5f-5f0e-8f1a-7b1f6a2f3c4d"
# By number: what each is for. LOST and BACKWARDS count from the start of the driver.
SLOW, FAST, NO_COUNTER, FORBIDDEN, LOST, BACKWARDS = range(6)
MACHINE = f"""\
gpu {BIG} 00000000:17:00.0 300000 100 H100
gpu GPU-1 00000000:65:00.0 75000 20 A100
gpu GPU-2 00000000:B1:00.0 40000 0 P4
gpu GPU-3 00000000:CA:00.0 50000 20 V100
gpu GPU-4 00000000:E3:00.0 60000 20 L4
gpu GPU-5 00000000:E4:00.0 60000 20 L40
mig {SLICE} 0
fails {NO_COUNTER} energy 3 0
fails {FORBIDDEN} energy 4 0
fails {LOST} energy 15 400
backwards {BACKWARDS} 800
"""
CHECK = "check with nvidia-smi that the driver runs"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with libnvidia-ml.so.1."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler (cc) to compile the simulated driver")
    if sys.platform != "linux":
        pytest.skip("LD_LIBRARY_PATH is Linux's")
    folder = tmp_path_factory.mktemp("driver")
    made = folder / "libnvidia-ml.so.1"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", made, SIMULATED / "nvml.c"], check=True
    )
    return folder


def run(folder: Path, machine: str, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Do jobs in a process that finds its driver in a folder."""
    stated = folder / "machine"
    stated.write_text(machine)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), "SIMULATED_NVML": str(stated)}
    environment["PYTHONPATH"] = str(Path(pytest_nnscale.__file__).parents[1])
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    done = subprocess.run(
        [sys.executable, SIMULATED / "measuring.py", json.dumps(jobs)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


JOBS: dict[str, dict[str, Any]] = {
    "lost": {"device": f"cuda:{LOST}"},
    "backwards": {"device": f"cuda:{BACKWARDS}", "max_time_s": 1.2},
    "slow": {"device": f"cuda:{SLOW}", "watts": 300.0, "max_time_s": 2.0},
    "fast": {"device": f"cuda:{FAST}", "watts": 75.0},
    "no counter": {"device": f"cuda:{NO_COUNTER}", "watts": 40.0},
    "forbidden": {"device": f"cuda:{FORBIDDEN}"},
    "first": {"device": "cuda:0", "opens_only": True},
    "second": {"device": "cuda:1", "opens_only": True},
    "number": {"device": "cuda:1", "visible": "5,1,0", "opens_only": True},
    "uuid": {"device": "cuda:0", "visible": f"GPU-1,{BIG}", "opens_only": True},
    "short uuid": {"device": "cuda:0", "visible": "GPU-89", "opens_only": True},
    "slice": {"device": "cuda:0", "visible": SLICE, "opens_only": True},
    "hidden": {"device": "cuda:1", "visible": "1", "opens_only": True},
    "no such uuid": {"device": "cuda:0", "visible": "GPU-none", "opens_only": True},
}


@pytest.fixture(scope="module")
def told(library: Path) -> dict[str, dict[str, Any]]:
    """Return what came of each job, all in one process."""
    return dict(zip(JOBS, run(library, MACHINE, list(JOBS.values())), strict=True))


@pytest.mark.parametrize(
    ("job", "name"),
    [
        ("first", "NVML H100"),
        ("second", "NVML A100"),
        ("number", "NVML A100"),
        ("uuid", "NVML A100"),
        ("short uuid", "NVML H100"),
        ("slice", "NVML H100"),
    ],
)
def test_the_right_gpu_is_opened(told: dict[str, dict[str, Any]], job: str, name: str) -> None:
    """By its number and its UUID, under CUDA_VISIBLE_DEVICES; a slice by its GPU, and says so."""
    assert told[job]["names"] == [name]
    of_a_slice = [["of the whole GPU, the other slices of it (MIG) included"]]
    assert told[job]["notes"] == (of_a_slice if job == "slice" else [[]])


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        ("hidden", "cuda:1 is not among CUDA_VISIBLE_DEVICES=1"),
        ("no such uuid", "NVML gives no energy: Not Found"),
        ("forbidden", "NVML gives no energy: Insufficient Permissions"),
        ("lost", "NVML gives no energy: GPU is lost"),
    ],
)
def test_what_cannot_be_read_is_told(
    told: dict[str, dict[str, Any]], job: str, reason: str
) -> None:
    """In NVML's words, and no number with it."""
    assert told[job]["reason"] == reason
    assert told[job].get("value") is None


def test_a_gpu_is_lost_in_the_middle_of_the_window(told: dict[str, dict[str, Any]]) -> None:
    """Not before: calls had been made, and this machine does not lack a counter."""
    assert told["lost"]["truth_j"] is not None
    assert told["lost"]["missing"] == ""


def test_a_counter_that_goes_back_is_no_number(told: dict[str, dict[str, Any]]) -> None:
    """The driver was loaded anew."""
    assert told["backwards"]["reason"].startswith("the counter of NVML L40 went back from ")
    assert told["backwards"]["value"] is None


@pytest.mark.parametrize("job", ["slow", "fast", "no counter"])
def test_the_set_power_is_recovered(told: dict[str, dict[str, Any]], job: str) -> None:
    """Within 2 %: by a counter of ten or fifty updates a second, and by power that is summed up."""
    found = told[job]
    assert found["value"] == pytest.approx(found["truth_j"], rel=0.02)
    assert found["lower"] * 0.98 <= found["truth_j"] <= found["upper"] * 1.02


def test_a_gpu_without_a_counter_says_how_its_joules_came_about(
    told: dict[str, dict[str, Any]],
) -> None:
    """Its name and its note."""
    assert told["no counter"]["method"] == "NVML power of P4"
    assert any("summed up from NVML's power" in note for note in told["no counter"]["notes"])


def test_a_driver_that_is_not_there(library: Path) -> None:
    """The library is, and answers nvmlInit with 9."""
    (found,) = run(library, "init 9\n", [{"device": "cuda:0"}])
    assert found["reason"] == "NVML gives no energy: Driver Not Loaded"
    assert (found["missing"], found["remedy"]) == ("energy", CHECK)


def test_a_library_that_is_not_there(tmp_path: Path) -> None:
    """As on every machine without an NVIDIA GPU."""
    (found,) = run(tmp_path, MACHINE, [{"device": "cuda:0"}])
    if found["value"] is not None or "Not Found" not in found["reason"]:
        pytest.skip("this machine has the library")
    assert found["reason"] == "NVML gives no energy: NVML Shared Library Not Found"
    assert found["missing"] == "energy"
