"""Processes: those above this one, and what those below it compute."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_nnscale.timing.hold import TEST, Hold
from pytest_nnscale.timing.processes import ancestors, cpu_s, namespace

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def test_the_parent_is_above() -> None:
    """This process is not, nor is the first of all, which many containers have."""
    assert os.getppid() in ancestors() | {1}
    assert not ancestors() & {os.getpid(), 0, 1}


@linux
def test_a_grandparent_is_above() -> None:
    """Such as pytest, above a shell that it starts."""
    program = "from pytest_nnscale.timing.processes import ancestors; print(*ancestors())"
    between = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {program!r}], check=True)"
    )
    said = subprocess.run(
        [sys.executable, "-c", between], capture_output=True, text=True, check=True
    )
    assert os.getpid() in map(int, said.stdout.split())


@linux
def test_what_a_child_computes_counts() -> None:
    """A test that waits for its compiler is not idle."""
    before_s = cpu_s(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        own_s, until_s = sum(os.times()[:2]), time.monotonic() + 30
        while time.monotonic() < until_s:
            computed_s = cpu_s(os.getpid())
            assert before_s is not None
            assert computed_s is not None
            others_s = computed_s - before_s - (sum(os.times()[:2]) - own_s)
            if others_s > 0.2:
                return
            time.sleep(0.05)
        pytest.fail("nothing was seen of it")
    finally:
        child.kill()
        child.wait()


@linux
def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    """Which is not zero."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert cpu_s(child.pid) is None


def test_a_hold_tells_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a worker, too; in another container the same number is another process."""
    assert Hold.new(TEST, "a").pid == os.getpid()
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw3")
    hold = Hold.new(TEST, "process 5")
    assert hold.pid == os.getpid()
    monkeypatch.setattr("pytest_nnscale.timing.hold.namespace", lambda: f"{namespace()}0")
    assert hold.pid is None
