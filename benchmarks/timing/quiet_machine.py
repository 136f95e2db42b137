"""Whether a suite gets the same verdicts with many workers as with none: whole sessions, in pairs.

    python benchmarks/timing/quiet_machine.py [--rounds 5] [--workers 4]

One suite of twelve tests runs by itself and under `pytest -n`, the order alternating. Eight tests keep
all cores busy and have exact budgets. Four have a latency budget, two of them three times above what
the call takes on this machine, two at a third of it: the time is taken first, by the same suite with
budgets that nobody meets. The table says what each session found. The exit code is 1 where a verdict
is another than that of the first session, or none; 2 where nothing was compared.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

FAR = 3.0

SUITE = """
import time

import pytest
import torch

LIMITS_MS = {limits}
x = torch.rand(64, 256)


def network(depth):
    layers = [torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.ReLU()) for _ in range(depth)]
    return torch.nn.Sequential(*layers).eval()


@pytest.mark.parametrize("n", range(8))
@pytest.mark.max_flops(2 * 64 * 256 * 256 * 4)
def test_exact(nnscale, n):
    end_s, square = time.monotonic() + 0.5, torch.rand(512, 512)
    while time.monotonic() < end_s:
        square @ square
    nnscale(network(4), x)


@pytest.mark.max_latency_ms(LIMITS_MS)
@pytest.mark.parametrize("depth", [4, 40], ids=["short", "long"])
@pytest.mark.parametrize("side", ["above", "below"])
def test_sampled(nnscale, side, depth):
    with torch.no_grad():
        nnscale(network(depth), x)
"""
CALLS = ("short", "long")


class Session(NamedTuple):
    """What a session found: the outcome of every budget, the latencies, and how long it took."""

    outcomes: dict[str, str]
    latency_s: dict[str, float]
    seconds: float


def run(folder: Path, limits_ms: dict[str, float], *words: str) -> Session:
    """Run the suite as a process of its own; a session that has broken off ends the script."""
    (folder / "test_it.py").write_text(SUITE.format(limits=json.dumps(limits_ms)))
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=out.xml"]
    env = {k: v for k, v in os.environ.items() if k not in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")}
    begun_s = time.perf_counter()
    done = subprocess.run([*command, *words], cwd=folder, env=env, capture_output=True, text=True)
    seconds = time.perf_counter() - begun_s
    if done.returncode not in (0, 1):
        print(done.stdout, done.stderr, sep="\n")
        raise SystemExit(2)
    outcomes, latency_s = {}, {}
    for case in ElementTree.parse(folder / "out.xml").iter("testcase"):
        for told in case.iter("property"):
            if told.get("name") == "nnscale.verdict":
                verdict = json.loads(told.get("value", ""))
                outcomes[case.get("name", "")] = verdict["outcome"]
                measured = verdict["measurement"]
                if verdict["outcome"] == "unmeasured":
                    print(f"unmeasured: {case.get('name')}: {measured['reason']}")
                elif measured["metric"] == "latency":
                    latency_s[case.get("name", "")] = measured["value"]
    return Session(outcomes, latency_s, seconds)


def limits_of(folder: Path) -> dict[str, float]:
    """Take the time of both calls, and set budgets far away from it on either side."""
    keys = [f"{side}-{call}" for side in ("above", "below") for call in CALLS]
    taken = run(folder, dict.fromkeys(keys, 1e-6), "-k", "sampled and below").latency_s
    if len(taken) != len(CALLS):
        raise SystemExit(2)
    call_ms = {call: taken[f"test_sampled[below-{call}]"] * 1e3 for call in CALLS}
    print("alone: " + ", ".join(f"{call} call {ms:.3g} ms" for call, ms in call_ms.items()))
    factor = {"above": FAR, "below": 1 / FAR}
    return {key: call_ms[key.split("-")[1]] * factor[key.split("-")[0]] for key in keys}


def main() -> int:
    """Run the sessions, print what they found, and say by the exit code whether they agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="pairs of sessions (5)")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="workers of xdist (4)")
    asked = parser.parse_args()

    found: dict[str, list[Session]] = {"no xdist": [], f"-n{asked.workers}": []}
    with tempfile.TemporaryDirectory() as place:
        limits_ms = limits_of(Path(place))
        for number in range(asked.rounds):
            for name in list(found)[:: -1 if number % 2 else 1]:
                words = ["-p", "no:xdist"] if name == "no xdist" else [name]
                found[name].append(run(Path(place), limits_ms, *words))

    expected = {
        **{f"test_exact[{n}]": "within" for n in range(8)},
        **{f"test_sampled[above-{call}]": "within" for call in CALLS},
        **{f"test_sampled[below-{call}]": "over" for call in CALLS},
    }
    differing = 0
    for name, sessions in found.items():
        took_s = [session.seconds for session in sessions]
        print(f"\n{name}: {len(sessions)} sessions of {statistics.median(took_s):.1f} s")
        for test in expected:
            got = [session.outcomes.get(test, "none") for session in sessions]
            told = ", ".join(f"{got.count(each)} {each}" for each in dict.fromkeys(got))
            taken_s = [session.latency_s[test] for session in sessions if test in session.latency_s]
            spread = (
                f"{min(taken_s) * 1e3:8.3g} to {max(taken_s) * 1e3:.3g} ms,"
                f" budget {limits_ms[test[13:-1]]:.3g} ms"
                if taken_s
                else ""
            )
            print(f"  {test:<26} {told:<12} {spread}")
        differing += sum(session.outcomes != expected for session in sessions)
    print(
        f"\n{differing} of {sum(map(len, found.values()))} sessions have other verdicts"
        " than the budgets call for"
    )
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
