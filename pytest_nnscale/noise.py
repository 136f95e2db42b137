"""The noise of a machine: how far apart two times of identical code are, test by test.

What is stored of a test holds for the machine that it was measured on: see `fingerprint`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pytest_nnscale.fingerprint import take_fingerprint
from pytest_nnscale.store import Store, cache_folder
from pytest_nnscale.timing.student import student_quantile

DEFINITION = "noise/1"


class Floor(NamedTuple):
    """Shares below which a difference is none: of two that took turns, and of two sessions."""

    ratio: float
    time: float


def floor_of(
    logs: Sequence[float], seconds: Sequence[tuple[float, float]], confidence: float
) -> Floor:
    """Return the floor from the restarts of identical code: log ratios, and seconds of both sides.

    Of ratios it is the end of the interval of their mean that is further from none: what as many
    restarts would tell apart at the least. Of times it is the interval of one more session's:
    Student's prediction interval. Source: G. J. Hahn and W. Q. Meeker, Statistical Intervals, 1991.
    """
    mean, spread = _moments(logs)
    n = len(logs)
    half = student_quantile(1 - (1 - confidence) / 2, n - 1) * spread / math.sqrt(n)
    # Both sides of a restart had the same moment: they count once.
    _, scatter = _moments([math.log(base) for base, _ in seconds])
    beyond = student_quantile(1 - (1 - confidence) / 2, n - 1) * scatter * math.sqrt(1 + 1 / n)
    return Floor(math.expm1(abs(mean) + half), math.expm1(beyond))


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation of a sample."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance)


class Noise:
    """The floors that are known on this machine."""

    def __init__(self, folder: Path | None = None) -> None:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.machine = take_fingerprint(device)
        self._store = Store(
            folder or cache_folder(), self.machine, kind="noise", definition=DEFINITION
        )

    @property
    def trouble(self) -> str:
        """Why floors could not be stored, or ""."""
        return self._store.trouble

    def recall(self, test: str, call: int) -> Floor | None:
        """Return the floor of a test's call; None where it was not calibrated here."""
        found = [self._store.recall(f"{test}#{call} {kind}") for kind in Floor._fields]
        ratio, time = found
        return None if ratio is None or time is None else Floor(ratio, time)

    def remember(self, test: str, call: int, floor: Floor) -> None:
        """Store the floor of a test's call."""
        for kind, share in floor._asdict().items():
            self._store.remember(f"{test}#{call} {kind}", share)


def any_known(folder: Path | None = None) -> bool:
    """Tell whether anything was ever calibrated by this user: asking costs next to nothing."""
    folder = folder or cache_folder()
    return folder is not None and (folder / "noise").is_dir()


def whole_id(nodeid: str, *roots: Path) -> str:
    """Return the id of a test with the full path of its file, found below one of some folders."""
    file, colons, rest = nodeid.partition("::")
    for root in roots:
        if (root / file).exists():
            return f"{(root / file).resolve()}{colons}{rest}"
    return nodeid


def too_close(share: float, floor: float) -> str:
    """Say that a difference is below a floor."""
    return (
        f"{100 * share:.1f} % apart, and on this machine identical code is up to "
        f"{100 * floor:.1f} % apart (nnscale calibrate)"
    )


Recall = Callable[[str, int], "Floor | None"]
