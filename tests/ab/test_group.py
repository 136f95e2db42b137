"""A group of processes: gone when it is left, with all that its first process has started."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from pytest_nnscale.ab.group import Group

SLEEPS = "import time; time.sleep(60)"


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie is gone, and waits for whoever adopted it.
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def read_when_there(path: Path) -> str:
    until_s = time.monotonic() + 20
    while time.monotonic() < until_s:
        if path.exists() and path.read_text().endswith("\n"):
            return path.read_text().strip()
        time.sleep(0.01)
    raise AssertionError(f"{path} was never written")


def python(code: str, folder: Path, **more: tuple[int, ...]) -> Group:
    return Group([sys.executable, "-c", code], folder, os.environ, **more)


def test_what_was_printed_is_kept(tmp_path: Path) -> None:
    """Of both streams, with the status."""
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)"
    with python(code, tmp_path) as group:
        assert group.wait(20) == 3
    assert group.output() == "out\nerr\n"


def test_waiting_has_an_end(tmp_path: Path) -> None:
    """None says that it still runs."""
    with python(SLEEPS, tmp_path) as group:
        assert group.wait(0.05) is None
        assert not group.has_ended


@pytest.mark.parametrize("stubborn", [False, True])
def test_leaving_ends_it(tmp_path: Path, stubborn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what ignores being asked, and what was started by it."""
    monkeypatch.setattr("pytest_nnscale.ab.group._PATIENCE_S", 0.2)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" if stubborn else ""
    code = f"""
{deaf}
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "{deaf} {SLEEPS}"])
print(os.getpid(), child.pid, file=open("pids", "w"))
{SLEEPS}
"""
    with python(code, tmp_path):
        pids = [int(word) for word in read_when_there(tmp_path / "pids").split()]
        assert all(map(is_running, pids))
    until_s = time.monotonic() + 5
    while any(map(is_running, pids)) and time.monotonic() < until_s:
        time.sleep(0.01)
    assert not any(map(is_running, pids))


@pytest.mark.parametrize("how", ["", ", start_new_session=True"])
def test_what_outlives_the_first_process_is_ended(tmp_path: Path, how: str) -> None:
    """A server that a test has started and forgot, also one that has left the group."""
    if how and not Path("/proc/self/environ").exists():
        pytest.skip("who has left the group is found in /proc alone")
    code = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "{SLEEPS}"]{how})
print(child.pid, file=open("pids", "w"))
"""
    with python(code, tmp_path) as group:
        assert group.wait(20) == 0
        pid = int(read_when_there(tmp_path / "pids"))
    until_s = time.monotonic() + 5
    while is_running(pid) and time.monotonic() < until_s:
        time.sleep(0.01)
    assert not is_running(pid)


def test_pipes_are_handed_on(tmp_path: Path) -> None:
    """Those that are named, and no others."""
    reads, writes = os.pipe()
    kept, other = os.pipe()
    code = f"""
import os
os.write({writes}, b"there")
try:
    os.fstat({other})
except OSError:
    os.write({writes}, b" alone")
"""
    with python(code, tmp_path, pipes=(writes,)) as group:
        group.wait(20)
        assert os.read(reads, 100) == b"there alone"
    for descriptor in (reads, writes, kept, other):
        os.close(descriptor)


def test_a_command_that_cannot_be_started_raises(tmp_path: Path) -> None:
    """Nothing stays open."""
    with pytest.raises(FileNotFoundError):
        Group([str(tmp_path / "nothing")], tmp_path, os.environ)
