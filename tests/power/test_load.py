"""Load: the CPU time of others, and that it is unknown where nothing tells it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_nnscale.power import load as room
from pytest_nnscale.power.load import Load

TICKS = os.sysconf("SC_CLK_TCK")


def written(file: Path, busy_s: float, idle_s: float = 0.0) -> Path:
    """Write a first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal, guest."""
    ticks = [int(each * TICKS) for each in (busy_s / 2, 0, busy_s / 2, idle_s, idle_s, 0, 0, 0, 9)]
    file.write_text(f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3\n")
    return file


def test_what_all_used_less_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle time and waiting for a disk are no load; time of guests is in that of users."""
    own_s = iter([10.0, 13.0])
    monkeypatch.setattr(room, "_own_s", lambda: next(own_s))
    stat = written(tmp_path / "stat", 100.0, 50.0)
    load = Load(stat)
    written(stat, 108.0, 90.0)
    assert load.others_s() == pytest.approx(5.0)


def test_it_is_never_less_than_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two clocks are read at two moments, and one of them in ticks."""
    own_s = iter([0.0, 1.0])
    monkeypatch.setattr(room, "_own_s", lambda: next(own_s))
    assert Load(written(tmp_path / "stat", 1.0)).others_s() == 0.0


@pytest.mark.parametrize("text", [None, "", "cpu\n", "cpu a b c d e f g h i\n"])
def test_it_is_unknown_where_nothing_tells(tmp_path: Path, text: str | None) -> None:
    """Other systems have no such file."""
    stat = tmp_path / "stat"
    if text is not None:
        stat.write_text(text)
    assert Load(stat).others_s() is None


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux tells the load of a machine")
def test_our_own_work_is_no_load() -> None:
    """Whatever others do meanwhile, they cannot do it in the time that was ours."""
    load, begun_s, wall_s = Load(), time.process_time(), time.perf_counter()
    while time.process_time() < begun_s + 0.3:
        pass
    others_s = load.others_s()
    most_s = (time.perf_counter() - wall_s) * (os.cpu_count() or 1)
    assert others_s is not None
    assert others_s < most_s - 0.15


def test_our_own_seconds_include_those_of_children_that_have_ended() -> None:
    """A call may run workers: they are no others."""
    begun_s = room._own_s()
    work = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", work], check=True)
    assert room._own_s() - begun_s >= 0.25
