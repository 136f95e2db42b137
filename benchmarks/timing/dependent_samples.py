"""How often a verdict that was reached by looking again and again is wrong, on simulated samples.

    python benchmarks/timing/dependent_samples.py [--runs 1000] [--samples 1500]

Durations are the exponential of an AR(1) process, so skewed, and correlated from call to call. The
limit is the true quantile itself: whatever is decided is wrong. Looks are taken at every tenth
sample more, as the sampler does, at 99 %. Beside it the same samples in blocks of one, and the
interval of a fixed number of samples, looked at as often. Exits with 1 where more than one in a
hundred is wrong at a correlation of up to 0.9.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
from collections.abc import Callable

from rich.progress import track

from pytest_nnscale.timing.interval import Looks, quantile_interval
from pytest_nnscale.timing.sequence import least_samples, surely_above, surely_below

CONFIDENCE = 0.99
Look = Callable[[list[float]], tuple[float, float] | None]


def process(r: random.Random, n: int, correlation: float) -> list[float]:
    state, found = r.gauss(0, 1), []
    for _ in range(n):
        state = correlation * state + math.sqrt(1 - correlation**2) * r.gauss(0, 1)
        found.append(math.exp(0.2 * state))
    return found


def blocks(quantile: float) -> Look:
    looks = Looks(quantile, CONFIDENCE)

    def look(samples: list[float]) -> tuple[float, float] | None:
        found = looks.look(samples)
        return None if found is None else (found.lower, found.upper)

    return look


def single(quantile: float) -> Look:
    def look(samples: list[float]) -> tuple[float, float] | None:
        n, ordered = len(samples), sorted(samples)
        above = surely_above(n, quantile, CONFIDENCE)
        below = surely_below(n, quantile, CONFIDENCE)
        if above is None or below is None:
            return None
        return ordered[math.floor(above)], ordered[min(math.ceil(below), n) - 1]

    return look


def fixed(quantile: float) -> Look:
    return lambda samples: quantile_interval(samples, quantile, CONFIDENCE)


def decided_at(samples: list[float], look: Look, least: int, limit: float) -> int | None:
    n = least
    while n <= len(samples):
        found = look(samples[:n])
        if found is not None and not found[0] <= limit <= found[1]:
            return n
        n = max(n + 1, int(1.1 * n))
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=1500)
    options = parser.parse_args()
    ways = {"in blocks": blocks, "samples by themselves": single, "a fixed number": fixed}
    print(
        f"{options.runs} runs of {options.samples} samples, {100 * CONFIDENCE:g} %; wrong verdicts"
    )
    failed = False
    for quantile in (0.5, 0.95):
        least = least_samples(quantile, CONFIDENCE)
        truth = math.exp(0.2 * statistics.NormalDist().inv_cdf(quantile))
        for correlation in (0.0, 0.5, 0.9, 0.97):
            r = random.Random(1)
            runs = [
                process(r, options.samples, correlation)
                for _ in track(range(options.runs), "drawing", transient=True)
            ]
            shares = {}
            for name, way in ways.items():
                wrong = sum(
                    decided_at(samples, way(quantile), least, truth) is not None
                    for samples in track(runs, name, transient=True)
                )
                shares[name] = wrong / options.runs
            told = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
            print(f"p{100 * quantile:g}, correlation {correlation:g}: {told}", flush=True)
            failed |= correlation <= 0.9 and shares["in blocks"] > 0.01
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
