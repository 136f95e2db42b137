"""How long counting a model takes, beside every other counter that is installed.

    python benchmarks/peers/counting_speed.py [--rounds 5] [--cold 3] [MODEL ...]

Batch 1. Warm: freshly built instances in one process that has counted the model before, every
counter in turn in each round. Cold: the first count of a process, torch and the model's code
imported, the counter's own import included; a process for each, with the bytecode caches that an
installed package has. A counter that is off by more than 2 % on a model does not count as a rival
there. Ours is `profile(model, args=(image,), metrics="flops")`, with its rows by module; beside it stands
the same with all exact metrics, among them memory, which no rival tells. The floor is recorded shapes handed back by a bare
dispatch mode under the same grad mode as ours, without and with a hook on each module. Below the table, the ratio to the fastest
rival that is right, as a geometric mean. Exits with 1 where it is under 6 (warm) or 2 (cold), or
where any model is slower than a rival.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import math
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torchvision.models import get_model

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.peers.floor import record, replay
from pytest_nnscale.peers import PEERS, Peer
from pytest_nnscale.profiles import Profile

MODELS = (
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "efficientnet_b0",
    "densenet121",
    "convnext_tiny",
    "swin_t",
    "vit_b_16",
    "regnet_y_400mf",
)
OURS, EVERYTHING = "nnscale", "nnscale, all metrics"
RIGHT = 0.02
WARM, COLD = 6.0, 2.0

Count = Callable[[torch.nn.Module, tuple[torch.Tensor, ...]], "int | None"]


def ours(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> int | None:
    import pytest_nnscale

    return _right(pytest_nnscale.profile(model, args=inputs, metrics="flops"))


def everything(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> int | None:
    import pytest_nnscale

    found = pytest_nnscale.profile(model, args=inputs)
    assert found.memory_bytes
    return _right(found)


def _right(found: Profile) -> int | None:
    assert found.method == "traced", found.measurement("flops").notes
    assert len(found.modules) > 1
    return found.flops


def asked(peer: Peer) -> Count:
    def count(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> int | None:
        with torch.no_grad():
            return peer.ask(model, inputs).flops

    return count


def counters() -> dict[str, Count]:
    from importlib.util import find_spec

    found = {peer.name: asked(peer) for peer in PEERS if find_spec(peer.package)}
    return {OURS: ours, EVERYTHING: everything, **found}


def built(name: str) -> torch.nn.Module:
    return get_model(name, weights=None).eval()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def timed(count: Count, name: str, image: torch.Tensor) -> tuple[float, int | None]:
    """Time one count of a fresh model, in seconds; a counter that fails gives no FLOPs."""
    model = built(name)
    gc.collect()
    with quietly():
        start = time.perf_counter()
        try:
            flops = count(model, (image,))
        except Exception:  # a peer may fail in any way of its own
            flops = None
        return time.perf_counter() - start, flops


def warm(name: str, rounds: int) -> tuple[dict[str, list[float]], dict[str, int | None]]:
    """Time every counter in turn, each on models of its own, after one that is not timed."""
    image = torch.rand(1, 3, 224, 224)
    times: dict[str, list[float]] = {}
    flops: dict[str, int | None] = {}
    for turn in range(rounds + 1):
        for counter, count in counters().items():
            if turn and flops[counter] is None:
                continue
            seconds, flops[counter] = timed(count, name, image)
            if turn:
                times.setdefault(counter, []).append(seconds)
    for label, hooks in (("floor", False), ("floor, hooks", True)):
        model = built(name)
        outputs = record(model, (image,))
        for turn in range(rounds + 1):
            start = time.perf_counter()
            replay(model, (image,), outputs, hooks=hooks)
            if turn:
                times.setdefault(label, []).append(time.perf_counter() - start)
    return times, flops


def cold(name: str, counter: str, runs: int) -> list[float]:
    """Time the first count of some fresh processes."""
    command = [sys.executable, __file__, "--once", counter, name]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    texts = [
        subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        for _ in range(runs)
    ]
    return [float(text) for text in texts]


def cold_beside(name: str, rivals: list[str], runs: int) -> dict[str, list[float]]:
    """Time ours and the two fastest of some rivals, of which each is tried once to know them."""
    cold(name, OURS, 1)  # writes bytecode
    tried = {each: cold(name, each, 1)[0] for each in rivals}
    fastest = sorted(rivals, key=tried.__getitem__)[:2]
    found: dict[str, list[float]] = {}
    for _ in range(runs):
        for each in (OURS, *fastest):
            found.setdefault(each, []).extend(cold(name, each, 1))
    return found


def once(counter: str, name: str) -> None:
    print(timed(counters()[counter], name, torch.rand(1, 3, 224, 224))[0])


def shown(seconds: list[float]) -> str:
    middle = statistics.median(seconds) * 1000
    return f"{middle:7.1f} ({min(seconds) * 1000:.1f} to {max(seconds) * 1000:.1f})"


def compared(name: str, rounds: int, cold_runs: int) -> tuple[float, float | None]:
    """Print one model's table; return how many times faster than the fastest right rival ours is."""
    times, flops = warm(name, rounds)
    reference = flops[OURS]
    assert reference
    print(f"\n{name}: {reference:,} FLOP; ms, median (least to most)")
    rivals = []
    for counter in sorted(times, key=lambda each: statistics.median(times[each])):
        found = flops.get(counter)
        right = found is not None and abs(found - reference) <= RIGHT * reference
        off = "" if found is None or right else f"  off by {100 * (found / reference - 1):+.1f} %"
        if right and counter not in (OURS, EVERYTHING):
            rivals.append(counter)
        print(f"  {counter:21} {shown(times[counter])}{off}")
    fastest = rivals[0]
    pairs = zip(times[fastest], times[OURS], strict=True)
    ratio = statistics.median(theirs / mine for theirs, mine in pairs)
    print(f"  {ratio:.1f} times faster than {fastest}")
    if not cold_runs:
        return ratio, None
    found_cold = cold_beside(name, rivals, cold_runs)
    for counter, seconds in found_cold.items():
        print(f"  cold {counter:15} {shown(seconds)}")
    least = min(statistics.median(found_cold[each]) for each in found_cold if each != OURS)
    cold_ratio = least / statistics.median(found_cold[OURS])
    print(f"  cold: {cold_ratio:.1f} times faster")
    return ratio, cold_ratio


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", type=int, default=3, help="processes a counter; 0: none")
    parser.add_argument("--once", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        once(options.once, options.models[0])
        return 0
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch 1")
    ratios = [compared(name, options.rounds, options.cold) for name in options.models]
    failed = False
    for label, wanted, found in (
        ("warm", WARM, [each for each, _ in ratios]),
        ("cold", COLD, [each for _, each in ratios if each is not None]),
    ):
        if found:
            mean = math.exp(statistics.fmean(map(math.log, found)))
            print(
                f"\n{label}: geometric mean {mean:.1f} (wanted {wanted:g}), least {min(found):.1f}"
            )
            failed |= mean < wanted or min(found) < 1
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
