"""Fingerprints: what makes two times comparable, and nothing that jitters."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from pytest_nnscale import fingerprint
from pytest_nnscale.fingerprint import take_fingerprint

X86 = """\
processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC  9R14 Processor
cpu MHz\t\t: 2596.138

processor\t: 1
model name\t: another one
"""
ARM = """\
processor\t: 0
BogoMIPS\t: 243.75
CPU implementer\t: 0x41
CPU part\t: 0xd0c

processor\t: 1
"""


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a file where the kernel tells of the processor."""
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(fingerprint, "_CPUINFO", file)
    monkeypatch.setattr(fingerprint.platform, "system", lambda: "Linux")
    return file


def test_two_fingerprints_of_one_process_are_equal() -> None:
    """Nothing in it jitters: no clock frequency, no load, no free memory."""
    assert take_fingerprint() == take_fingerprint()


def test_it_names_processor_threads_and_torch() -> None:
    """All of which make the same code take another time."""
    found = take_fingerprint()
    assert found.torch == f"torch {torch.__version__}"
    assert found.threads == torch.get_num_threads()
    assert found.cpu
    assert found.cores >= 1
    assert found.gpu == ""


def test_another_number_of_threads_is_another_fingerprint() -> None:
    """A half as fast machine."""
    before = torch.get_num_threads()
    first = take_fingerprint()
    try:
        torch.set_num_threads(before + 1)
        assert take_fingerprint() != first
    finally:
        torch.set_num_threads(before)


def test_a_gpu_is_named_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the index that CUDA gives it; the CPU's fingerprint does not depend on it."""
    names = ["NVIDIA A100", "NVIDIA H100"]
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index=0: names[index])
    assert take_fingerprint("cuda").gpu == "NVIDIA A100"
    assert take_fingerprint("cuda:1").gpu == "NVIDIA H100"
    assert take_fingerprint("cpu").gpu == ""


def test_a_device_without_a_name_is_called_by_its_kind() -> None:
    """There is one MPS, and torch has no name for it."""
    assert take_fingerprint("mps").gpu == "mps"


def test_the_name_of_the_processor_is_its_makers(cpuinfo: Path) -> None:
    """That of the first, with its spaces in order; never its frequency."""
    cpuinfo.write_text(X86)
    assert take_fingerprint().cpu.startswith("AMD EPYC 9R14 Processor (")


def test_a_processor_without_a_name_has_its_numbers(cpuinfo: Path) -> None:
    """As those of ARM, which tell the maker and the part."""
    cpuinfo.write_text(ARM)
    assert take_fingerprint().cpu.startswith("0x41 0xd0c (")


@pytest.mark.parametrize("text", [None, "", "processor\t: 0\n"])
def test_a_processor_that_nothing_is_known_of_has_its_architecture(
    cpuinfo: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    """Whatever the kernel says, or does not."""
    if text is not None:
        cpuinfo.write_text(text)
    monkeypatch.setattr(fingerprint.platform, "processor", lambda: "")
    monkeypatch.setattr(fingerprint.platform, "machine", lambda: "riscv64")
    assert take_fingerprint().cpu.startswith("riscv64 (")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a folder where the kernel tells of control groups, for a process that may use 64 cores."""
    monkeypatch.setattr(fingerprint, "_CGROUPS", tmp_path)
    monkeypatch.setattr(fingerprint, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(64)), raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("", {}, 64),
        ("0::/", {"cpu.max": "max 100000"}, 64),
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"cpu.max": "6500000 100000"}, 64),
        ("0::/", {"cpu.max": "what is this"}, 64),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, 4),
        ("0::/a/b", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "400000 100000"}, 3),
        ("0::/a", {"b/cpu.max": "300000 100000"}, 64),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        (
            "2:pids:/\n1:cpu,cpuacct:/a",
            {"cpu/a/cpu.cfs_quota_us": "800000", "cpu/a/cpu.cfs_period_us": "100000"},
            8,
        ),
    ],
)
def test_a_container_has_the_cores_that_it_is_given_the_time_of(
    groups: Path, own: str, files: dict[str, str], cores: float
) -> None:
    """It sees all of the machine's, and may not use them."""
    (groups / "own").write_text(own)
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(f"{text}\n")
    found = take_fingerprint()
    assert found.cores == cores
    assert f" of {cores} cores" in str(found)


def test_its_text_is_one_line() -> None:
    """For notes and messages."""
    text = str(take_fingerprint()._replace(gpu="NVIDIA H100"))
    assert "NVIDIA H100" in text
    assert f"torch {torch.__version__}" in text
    assert "\n" not in text
