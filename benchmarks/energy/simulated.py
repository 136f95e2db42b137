"""How truly joules are measured, by machines that are simulated: a driver of GPUs and a powercap tree.

    python benchmarks/energy/simulated.py [TRIALS] [SECONDS]

A line for each counter: in how many trials the stated 99 % interval holds the truth, which the
simulation sets, how far the value is from it, and how wide the interval is. Needs Linux and `cc`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SIMULATED = ROOT / "tests/power/simulated"
GPUS = """\
gpu GPU-0 00000000:17:00.0 300000 100 every-100-ms
gpu GPU-1 00000000:65:00.0 75000 20 every-20-ms
gpu GPU-2 00000000:B1:00.0 40000 0 power-alone
fails 2 energy 3 0
"""
RANGE_UJ, PACKAGE_W, DRAM_W = 20_000_000, 50.0, 10.0


def main() -> None:
    """Measure as often as asked, and print the table."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    print(f"{trials} trials of {seconds:g} s each")
    print(f"{'counter':<28}{'told':>6}{'held':>6}{'off by':>10}{'at most':>10}{'half width':>12}")
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, watts) in enumerate(
            (("NVML every 100 ms", 300.0), ("NVML every 20 ms", 75.0), ("NVML power alone", 40.0))
        ):
            # Power alone lags behind by a second, which is waited for three times.
            asked_s = seconds if name != "NVML power alone" else max(seconds, 4.5)
            job = {"device": f"cuda:{number}", "watts": watts, "max_time_s": asked_s}
            print(
                row(name, on_gpus(Path(folder), job, trials if asked_s == seconds else trials // 5))
            )
        print(row("RAPL that wraps each 0.4 s", on_powercap(Path(folder), seconds, trials)))


def on_gpus(folder: Path, job: dict[str, Any], trials: int) -> list[dict[str, Any]]:
    """Measure by the driver that is compiled here."""
    (folder / "machine").write_text(GPUS)
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-o", library, SIMULATED / "nvml.c"], check=True
    )
    return measured(
        job, trials, LD_LIBRARY_PATH=str(folder), SIMULATED_NVML=str(folder / "machine")
    )


def on_powercap(folder: Path, seconds: float, trials: int) -> list[dict[str, Any]]:
    """Measure by a tree that another process advances."""
    tree = folder / "powercap"
    zones = {
        "intel-rapl:0": ("package-0", PACKAGE_W),
        "intel-rapl:0/intel-rapl:0:0": ("dram", DRAM_W),
    }
    for zone, (name, watts) in zones.items():
        (tree / zone).mkdir(parents=True)
        (tree / zone / "name").write_text(name)
        (tree / zone / "energy_uj").write_text(f"{0:020d}")
        (tree / zone / "max_energy_range_uj").write_text(str(RANGE_UJ))
        (tree / zone / "constraint_0_power_limit_uw").write_text(f"{watts * 1e6 / 2:.0f}")
    powers = [f"{zone}={watts}" for zone, (_, watts) in zones.items()]
    counting = subprocess.Popen(
        [sys.executable, SIMULATED / "powercap.py", tree, str(RANGE_UJ), "0.0005", *powers]
    )
    try:
        time.sleep(0.5)
        job = {"device": "cpu", "watts": PACKAGE_W + DRAM_W, "powercap_root": str(tree)}
        return measured({**job, "max_time_s": seconds}, trials)
    finally:
        counting.terminate()
        counting.wait()


def measured(job: dict[str, Any], trials: int, **environment: str) -> list[dict[str, Any]]:
    """Return what came of so many trials, in a process of their own."""
    done = subprocess.run(
        [sys.executable, SIMULATED / "measuring.py", json.dumps([job] * trials)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def row(name: str, found: list[dict[str, Any]]) -> str:
    """Return one line of the table, in percent of the truth."""
    told = [each for each in found if each["value"] is not None]
    if not told:
        return f"{name:<28}{0:>6}  {found[0]['reason']}"
    held = sum(each["lower"] <= each["truth_j"] <= each["upper"] for each in told)
    off = [100 * abs(each["value"] / each["truth_j"] - 1) for each in told]
    half = [50 * (each["upper"] - each["lower"]) / each["truth_j"] for each in told]
    return (
        f"{name:<28}{len(told):>6}{held:>6}{statistics.median(off):>8.2f} %{max(off):>8.2f} %"
        f"{statistics.median(half):>10.2f} %"
    )


if __name__ == "__main__":
    main()
