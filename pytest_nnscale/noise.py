"""The noise of a machine: how far apart two times of identical code are, test by test.

What is stored of a test holds for the machine that it was measured on, see `fingerprint`, and for the
minutes in which it was: what changes from one day to the next, such as a kernel's update or the
season, is not in it. It holds for the median, and says nothing of other quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pytest_nnscale.budget import Verdict
from pytest_nnscale.fingerprint import take_fingerprint
from pytest_nnscale.measurement import Metric
from pytest_nnscale.store import Store, cache_folder
from pytest_nnscale.student import student_quantile
from pytest_nnscale.units import format_quantity

DEFINITION = "noise/2"


class Floor(NamedTuple):
    """Shares below which a difference is none.

    `ratio` of the mean over as many restarts of two that take turns, `process` of two that take
    turns in one process, `time` of two sessions within minutes.
    """

    ratio: float
    process: float
    time: float


# What of a test's noise is held against the distance from a budget.
_NOISY = {Metric.LATENCY: "time", Metric.EFFICIENCY: "time", Metric.RATIO: "process"}


def floor_of(
    logs: Sequence[float], seconds: Sequence[tuple[float, float]], confidence: float
) -> Floor:
    """Return the floor from the restarts of identical code: log ratios, and seconds of both sides.

    Of the mean it is the end of its interval that is further from none: what as many restarts would
    tell apart at the least. Of one process and of one session it is the interval of one more: Student's
    prediction interval. Source: G. J. Hahn and W. Q. Meeker, Statistical Intervals, 1991.
    """
    n = len(logs)
    quantile = student_quantile(1 - (1 - confidence) / 2, n - 1)
    one_more = math.sqrt(1 + 1 / n)
    mean, spread = _moments(logs)
    # Both sides of a restart had the same moment: they count once.
    _, scatter = _moments([math.log(base) for base, _ in seconds])
    return Floor(
        math.expm1(abs(mean) + quantile * spread / math.sqrt(n)),
        math.expm1(abs(mean) + quantile * spread * one_more),
        math.expm1(quantile * scatter * one_more),
    )


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation of a sample."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance)


class Noise:
    """The floors that are known on this machine, for as many threads as this process has, or as told."""

    def __init__(self, folder: Path | None = None, *, threads: int | None = None) -> None:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        found = take_fingerprint(device)
        self.machine = found if threads is None else found._replace(threads=threads)
        self._store = Store(
            folder or cache_folder(), self.machine, kind="noise", definition=DEFINITION
        )

    @property
    def trouble(self) -> str:
        """Why floors could not be stored, or ""."""
        return self._store.trouble

    def recall(self, test: str, call: int, phase: str) -> Floor | None:
        """Return the floor of a test's call; None where it was not calibrated here."""
        shares = [
            share
            for kind in Floor._fields
            if (share := self._store.recall(_name(test, call, phase, kind))) is not None
        ]
        return Floor(*shares) if len(shares) == len(Floor._fields) else None

    def remember(self, test: str, call: int, phase: str, floor: Floor) -> None:
        """Store the floor of a test's call."""
        for kind, share in floor._asdict().items():
            self._store.remember(_name(test, call, phase, kind), share)


def _name(test: str, call: int, phase: str, kind: str) -> str:
    return f"{test}#{call} {phase} {kind}"


def any_known(folder: Path | None = None) -> bool:
    """Tell whether anything was ever calibrated by this user: asking costs next to nothing."""
    folder = folder or cache_folder()
    return folder is not None and (folder / "noise").is_dir()


def whole_id(file: Path, nodeid: str) -> str:
    """Return the id of a test with the full path of its file, the same from whatever folder."""
    _, colons, rest = nodeid.partition("::")
    return f"{file.resolve()}{colons}{rest}"


def doubts(verdicts: Sequence[Verdict], test: str) -> Iterator[tuple[Verdict, str]]:
    """Yield the verdicts on a test that are closer than this machine can tell, and what to do.

    A test that was not calibrated here has none.
    """
    noisy = [v for v in verdicts if v.budget.metric in _NOISY and v.budget.quantile in (None, 0.5)]
    if not noisy or not any_known():
        return
    noise = Noise()
    for verdict in noisy:
        floor = noise.recall(test, verdict.call, verdict.budget.phase)
        if floor is not None:
            text = _doubt(verdict, getattr(floor, _NOISY[verdict.budget.metric]))
            if text:
                yield verdict, text


def _doubt(verdict: Verdict, share: float) -> str:
    """Say by which budget a measurement would be told apart; "" where it is by its own."""
    value, limit, metric = verdict.measurement.value, verdict.budget.limit, verdict.budget.metric
    if not value or not limit:
        return ""
    apart = max(value / limit, limit / value) - 1
    if apart >= share:
        return ""
    # The next time it may be as much more, or of efficiency as much less.
    less = metric.more_is_better
    resolved = value / (1 + share) if less else value * (1 + share)
    return (
        f"{too_close(f'{100 * apart:.1f} % apart', share)}; the {'largest' if less else 'smallest'} budget that it can tell "
        f"from what was measured is {format_quantity(resolved, metric.dimension)}"
    )


def too_close(told: str, floor: float) -> str:
    """Say of a difference that it is below a floor."""
    return (
        f"{told}, and on this machine identical code is up to {100 * floor:.1f} % apart "
        "(nnscale calibrate)"
    )
