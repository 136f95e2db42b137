"""Whether `nnscale ab` cries wolf, and whether it hears one: identical code, and code that is slower.

    python benchmarks/timing/ab_identical.py [--quick] [--log FILE] [--minutes 60]

It makes a small repository with three workloads (about 40 us, 5 ms and 50 ms a call on the CPU) and
branches of it: one that is the same code, and one each that does 10 % and 30 % more of the same work.
Each run of `nnscale ab` compares one workload with the base, at the default threshold of 5 % and
within 60 s. Half of the runs of identical code have the other core kept busy. Beside them, for the
same workloads, pytest-benchmark's two sessions: one that saves, one that compares
(`--benchmark-compare-fail=median:5%`).

The exit code is 1 where more than 1 of 40 identical runs is called slower, fewer than 17 of 20 of
those with 10 % more work on the two longer workloads, or not all of those with 30 %; it is 3 where the
minutes were over before all runs were made. All of them take about two hours: with --log they are
written to a file as they end, and the next call makes those that are missing. --quick makes a few runs
of each, and says nothing of these shares.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

LAYERS = 10
MORE = {"same": LAYERS, "tenth": LAYERS + 1, "third": LAYERS + 3}
WORKLOADS = ("mlp_40us", "linear_5ms", "linear_50ms")
LONGER = WORKLOADS[1:]
BESIDE = "pytest-benchmark"
LIMIT_FALSE = 1 / 40
LIMIT_FOUND = 17 / 20

FILES = {
    "pytest.ini": "[pytest]\nasyncio_default_fixture_loop_scope = function\n",
    "workloads.py": """
import torch
from torch import nn

LAYERS = {layers}


def stack(width):
    return nn.Sequential(*[nn.Linear(width, width) for _ in range(LAYERS)]).eval()


def mlp_40us():
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
                         nn.Linear(64, 8)).eval(), torch.rand(8, 64)


def linear_5ms():
    return stack(512), torch.rand(128, 512)


def linear_50ms():
    return stack(1024), torch.rand(384, 1024)
""",
    "test_ab.py": """
import pytest
import torch
import workloads


@pytest.mark.max_latency_ms(60_000)
@pytest.mark.parametrize("name", ["mlp_40us", "linear_5ms", "linear_50ms"])
def test_ab(nnscale, name):
    model, inputs = getattr(workloads, name)()
    with torch.no_grad():
        nnscale(model, inputs)
""",
    "test_benchmark.py": """
import pytest
import torch
import workloads


@pytest.mark.parametrize("name", ["mlp_40us", "linear_5ms", "linear_50ms"])
def test_benchmark(benchmark, name):
    model, inputs = getattr(workloads, name)()
    with torch.no_grad():
        benchmark(model, inputs)
""",
}


class Job(NamedTuple):
    """One run that is to be made: of which workload and branch, and whether the machine is busy."""

    workload: str
    branch: str
    busy: bool = False


class Run(NamedTuple):
    """One verdict: of which workload and branch, whether the machine was busy, and what restarts gave."""

    workload: str
    branch: str
    busy: bool
    verdict: str
    ratio: str
    took_s: float
    log_ratios: tuple[float, ...] = ()


def make_repository(folder: Path) -> None:
    """Write the workloads, and a branch for each number of layers."""
    git(folder, "init", "--quiet", "--initial-branch=base", ".")
    for branch in ("base", *MORE):
        if branch != "base":
            git(folder, "checkout", "--quiet", "-b", branch, "base")
        for name, text in FILES.items():
            (folder / name).write_text(text.replace("{layers}", str(MORE.get(branch, LAYERS))))
        git(folder, "add", *FILES)
        git(folder, "commit", "--quiet", "--allow-empty", "--message", branch)


def git(folder: Path, *words: str) -> None:
    """Run git in the repository, as nobody in particular."""
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    subprocess.run(["git", *who, *words], cwd=folder, check=True)


@contextmanager
def load(*, busy: bool) -> Iterator[None]:
    """Keep one core busy, or none."""
    if not busy:
        yield
        return
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        spinning.kill()
        spinning.wait()


def run_ab(folder: Path, workload: str, branch: str, *, busy: bool) -> Run:
    """Compare a branch with the base, in one run of the command."""
    command = [sys.executable, "-m", "pytest_nnscale", "ab", "base", branch, "--json", "-"]
    start_s = time.perf_counter()
    with load(busy=busy):
        done = subprocess.run(
            [*command, "--", "test_ab.py", "-k", workload],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    took_s = time.perf_counter() - start_s
    if not done.stdout.startswith("{"):
        raise SystemExit(f"nnscale ab exited with {done.returncode}:\n{done.stderr}")
    (found,) = json.loads(done.stdout)["comparisons"]
    ratio, text = found["ratio"], found["reason"]
    if ratio is not None:
        high = float("inf") if ratio["high"] is None else ratio["high"]
        text = f"{ratio['value']:.3f} ({ratio['low']:.3f} to {high:.3f})"
    logs = tuple(round(each, 4) for each in found["log_ratios"])
    return Run(workload, branch, busy, found["change"], text, took_s, logs)


def run_benchmark(folder: Path, workload: str, *, busy: bool) -> Run:
    """Save one session of pytest-benchmark, and compare the next one with it."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_benchmark.py"]
    words = ["-k", workload, f"--benchmark-storage={folder / '.saved'}"]
    codes = []
    start_s = time.perf_counter()
    with load(busy=busy):
        for more in (
            ["--benchmark-save=first"],
            ["--benchmark-compare", "--benchmark-compare-fail=median:5%"],
        ):
            done = subprocess.run(
                [*command, *words, *more], cwd=folder, capture_output=True, text=True, check=False
            )
            codes.append(done.returncode)
    took_s = time.perf_counter() - start_s
    if codes[0] != 0 or codes[1] not in (0, 1):
        raise SystemExit(f"pytest-benchmark ended with {codes}:\n{done.stdout}{done.stderr}")
    verdict = "slower" if codes[1] else "not slower"
    return Run(workload, BESIDE, busy, verdict, "", took_s)


def tell(run: Run) -> Run:
    """Print one run, as soon as it is over."""
    busy = "busy " if run.busy else "quiet"
    print(
        f"{run.branch:<17} {run.workload:<12} {busy}  {run.verdict:<13} {run.ratio:<24} "
        f"{run.took_s:5.1f} s",
        flush=True,
    )
    return run


def share(runs: list[Run], verdict: str) -> str:
    """Return how many of some runs came to a verdict, and what the others came to."""
    counts = Counter(run.verdict for run in runs)
    others = ", ".join(f"{n} {name}" for name, n in counts.items() if name != verdict)
    return f"{counts[verdict]} of {len(runs)} {verdict}{f' ({others})' if others else ''}"


def plan(*, quick: bool) -> list[Job]:
    """Return all runs, in an order in which every part of it has some of each kind."""
    cycles, thirds = (3, 1) if quick else (20, 5)
    jobs: list[Job] = []
    for cycle in range(cycles):
        workload = WORKLOADS[cycle % len(WORKLOADS)]
        for busy in (False, True):
            jobs += [Job(workload, "same", busy=busy), Job(workload, BESIDE, busy=busy)]
        longer = LONGER[cycle % len(LONGER)]
        jobs.append(Job(longer, "tenth"))
        if cycle % (cycles // thirds) == 0:
            jobs += [Job(each, "third") for each in LONGER]
    return jobs


def run(folder: Path, job: Job) -> Run:
    """Make one run."""
    if job.branch == BESIDE:
        return run_benchmark(folder, job.workload, busy=job.busy)
    return run_ab(folder, job.workload, job.branch, busy=job.busy)


def read(log: Path | None) -> list[Run]:
    """Return the runs that were made before."""
    if log is None or not log.exists():
        return []
    return [tell(Run(**json.loads(line))) for line in log.read_text().splitlines()]


def main() -> int:
    """Make all runs, print the counts, and say by the exit code whether they are as promised."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few runs of each kind")
    parser.add_argument("--log", type=Path, help="runs are added to this file, and not made twice")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start none after that")
    given = parser.parse_args()
    until_s = time.monotonic() + 60 * given.minutes
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}", flush=True)
    runs = read(given.log)
    made = Counter(Job(each.workload, each.branch, busy=each.busy) for each in runs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_repository(folder)
        for job in (jobs := plan(quick=given.quick)):
            if made[job] > 0:
                made[job] -= 1
                continue
            if time.monotonic() > until_s:
                break
            runs.append(tell(run(folder, job)))
            if given.log is not None:
                with given.log.open("a") as file:
                    file.write(f"{json.dumps(runs[-1]._asdict())}\n")
    of = {branch: [each for each in runs if each.branch == branch] for branch in (*MORE, BESIDE)}
    print()
    print(f"identical code, nnscale ab        {share(of['same'], 'slower')}")
    print(f"identical code, pytest-benchmark  {share(of[BESIDE], 'slower')}")
    for branch, by in (("tenth", "+10 %"), ("third", "+30 %")):
        for workload in LONGER:
            found = [each for each in of[branch] if each.workload == workload]
            print(f"{by}, {workload:<12}               {share(found, 'slower')}")
    took_s = [each.took_s for each in runs if each.branch in MORE]
    print(f"a run of nnscale ab: {statistics.median(took_s):.0f} s, at most {max(took_s):.0f} s")
    if given.quick:
        return 0
    if len(runs) < len(jobs):
        print(f"{len(runs)} of {len(jobs)} runs were made")
        return 3
    wrong = rate(of["same"]) > LIMIT_FALSE or rate(of["tenth"]) < LIMIT_FOUND
    return int(wrong or rate(of["third"]) < 1)


def rate(runs: list[Run]) -> float:
    """Return the share of runs that were called slower."""
    return sum(each.verdict == "slower" for each in runs) / len(runs)


if __name__ == "__main__":
    sys.exit(main())
