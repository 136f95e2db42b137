"""Whether budgets a fifth away on either side get the same verdict in every session.

    python benchmarks/timing/same_verdicts.py [--sessions 50] [--busy]

Three workloads (about 40 us, 5 ms and 50 ms a call), each with a budget of 1.2 and one of 0.8 times
what it takes: within, and over. What it takes is timed right before, since machines drift from one
session to the next. Prints the verdicts, the time that each test took with all that the plugin does,
and the share that was decided in under half a second; `--busy` keeps another core at work
meanwhile. Exits with 1 where a verdict is not the one that is due.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.progress import track

SUITE = """
import statistics
import time

import pytest
import torch
from torch import nn

torch.set_num_threads(1)
SIZES = {"40 us": (1, 64, 10), "5 ms": (64, 512, 10), "50 ms": (128, 1024, 14)}


def built(name):
    rows, width, depth = SIZES[name]
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(depth))).eval(), torch.rand(rows, width)


@pytest.fixture
def workload(request, name, share):
    with torch.inference_mode():
        model, x = built(name)
        seconds, begun = [], time.perf_counter()
        while time.perf_counter() - begun < 1:
            start = time.perf_counter()
            model(x)
            seconds.append(time.perf_counter() - start)
        limit_ms = 1000 * share * statistics.median(seconds)
        request.node.add_marker(pytest.mark.max_latency_ms(limit_ms))
        yield model, x


@pytest.mark.parametrize("share", [1.2, 0.8])
@pytest.mark.parametrize("name", SIZES)
def test_it(workload, nnscale):
    nnscale(*workload)
"""

CONFTEST = """
import json


def pytest_runtest_logreport(report):
    if report.when == "call":
        told = [json.loads(text) for name, text in report.user_properties if name == "nnscale.verdict"]
        outcomes = [verdict["outcome"] for verdict in told]
        with open("told.jsonl", "a") as file:
            row = [report.nodeid, outcomes, report.duration, report.longreprtext]
            file.write(json.dumps(row) + "\\n")
"""


@contextlib.contextmanager
def other_core_busy(*, busy: bool) -> Iterator[None]:
    if not busy:
        yield
        return
    spinning = multiprocessing.Process(target=_spin, daemon=True)
    spinning.start()
    try:
        yield
    finally:
        spinning.kill()


def _spin() -> None:
    while True:
        pass


def session(folder: Path) -> list[tuple[str, str, float, str]]:
    """Run the suite once; return test, outcome, seconds and message of each."""
    told = folder / "told.jsonl"
    told.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_suite.py"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ran.returncode not in (0, 1):
        raise SystemExit(ran.stdout + ran.stderr)
    rows = [json.loads(line) for line in told.read_text().splitlines()]
    return [
        (test, " ".join(outcomes) or "none", took_s, why) for test, outcomes, took_s, why in rows
    ]


def due(test: str) -> str:
    """Return the verdict that a test has to get."""
    return "within" if "1.2" in test else "over"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--busy", action="store_true", help="keep another core at work")
    options = parser.parse_args()
    outcomes: dict[str, collections.Counter[str]] = {}
    took_s: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name, other_core_busy(busy=options.busy):
        folder = Path(name)
        (folder / "test_suite.py").write_text(SUITE)
        (folder / "conftest.py").write_text(CONFTEST)
        for _ in track(range(options.sessions), "sessions", transient=True):
            for test, outcome, seconds, why in session(folder):
                if outcome != due(test):
                    print(f"{test}: {outcome}\n{why}", flush=True)
                outcomes.setdefault(test, collections.Counter())[outcome] += 1
                took_s.setdefault(test, []).append(seconds)
    wrong = 0
    for test, found in outcomes.items():
        wrong += sum(found.values()) - found[due(test)]
        middle, most = statistics.median(took_s[test]), max(took_s[test])
        told = ", ".join(f"{n} {outcome}" for outcome, n in found.most_common())
        print(f"{test.partition('[')[2][:-1]:12} {told}; {middle:.2f} s (at most {most:.2f})")
    times = [seconds for each in took_s.values() for seconds in each]
    share = sum(seconds < 0.5 for seconds in times) / len(times)
    print(f"{100 * share:.0f} % decided in under 0.5 s; {wrong} of {len(times)} verdicts not due")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
