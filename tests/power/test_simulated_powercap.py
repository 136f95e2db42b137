"""A powercap tree that another process advances: the set power is recovered, wraps and all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pytest_nnscale
from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.power.rapl import find_rapl

SIMULATED = Path(__file__).parent / "simulated"
RANGE_J = 20.0
# Package and memory count, 60 W in all: the package starts anew every 0.4 s. The cores are among it.
WATTS = {
    "intel-rapl:0": ("package-0", 50.0),
    "intel-rapl:0/intel-rapl:0:0": ("core", 35.0),
    "intel-rapl:0/intel-rapl:0:1": ("dram", 10.0),
    "intel-rapl:1": ("psys", 90.0),
}
COUNTED_W = 60.0


def laid_out(root: Path) -> Path:
    """Write the zones of a processor that states its limits."""
    for zone, (name, watts) in WATTS.items():
        folder = root / zone
        folder.mkdir(parents=True)
        for file, text in (
            ("name", name),
            ("energy_uj", f"{0:020d}"),
            ("max_energy_range_uj", f"{RANGE_J * 1e6:.0f}"),
            # Half of it, so that nothing is missed in a gap of as long as a wrap takes: 0.4 s.
            ("constraint_0_power_limit_uw", f"{watts * 1e6 / 2:.0f}"),
        ):
            (folder / file).write_text(text)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Return a tree that counts, until the test is over."""
    tree = laid_out(tmp_path / "powercap")
    powers = [f"{zone}={watts}" for zone, (_, watts) in WATTS.items()]
    counting = subprocess.Popen(
        [sys.executable, SIMULATED / "powercap.py", tree, f"{RANGE_J * 1e6:.0f}", "0.0005", *powers]
    )
    try:
        file = tree / "intel-rapl:0/energy_uj"
        deadline_s = time.monotonic() + 20
        while int(file.read_text()) == 0:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        yield tree
    finally:
        counting.terminate()
        counting.wait()


def measured(root: Path, *, trials: int = 1, max_time_s: float = 1.0) -> list[dict[str, Any]]:
    """Measure in a process of its own, so many times, beside the truth."""
    job = {
        "device": "cpu",
        "watts": COUNTED_W,
        "powercap_root": str(root),
        "max_time_s": max_time_s,
    }
    done = subprocess.run(
        [sys.executable, SIMULATED / "measuring.py", json.dumps([job] * trials)],
        env={**os.environ, "PYTHONPATH": str(Path(pytest_nnscale.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_set_power_is_recovered(root: Path) -> None:
    """Within 2 %: package and memory, wrapped around several times, the cores and psys left out."""
    (found,) = measured(root, max_time_s=3.0)
    assert found["reason"] == ""
    assert found["lower"] <= found["truth_j"] <= found["upper"]
    assert found["method"] == "RAPL package-0, RAPL dram of package-0"
    assert found["value"] == pytest.approx(found["truth_j"], rel=0.02)
    idle = next(note for note in found["notes"] if note.startswith("idle "))
    assert float(idle.split()[1]) == pytest.approx(COUNTED_W, rel=0.25)


def test_a_wrap_that_may_have_been_missed_is_no_number(root: Path) -> None:
    """It was not read for longer than its range lasts at twice the limit."""
    counters = find_rapl(root)
    time.sleep(0.5)
    with pytest.raises(CannotMeasure, match="may have wrapped around unseen"):
        counters[0].read_j()


def test_a_zone_that_cannot_be_read_is_no_number(root: Path) -> None:
    """The memory's is among what counts, so the package's alone is too few joules."""
    zone = root / "intel-rapl:0/intel-rapl:0:1"
    (zone / "energy_uj").rename(zone / "hidden")
    (found,) = measured(root)
    assert found["value"] is None
    assert found["reason"].startswith(f"{zone / 'energy_uj'} cannot be read")
    assert found["missing"] == ""  # a tree that is broken is no machine without one


@pytest.mark.slow
def test_the_interval_holds_the_truth_in_95_of_100_trials(root: Path) -> None:
    """It states 99 %; a trial that claims nothing is none that holds it."""
    found = measured(root, trials=100, max_time_s=0.7)
    held = [
        each["value"] is not None and each["lower"] <= each["truth_j"] <= each["upper"]
        for each in found
    ]
    assert sum(held) >= 95, [each for each, holds in zip(found, held, strict=True) if not holds][:3]
