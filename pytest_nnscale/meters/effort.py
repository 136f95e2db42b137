"""How sampled metrics are measured: how long, how surely, and what holds off meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pytest_nnscale.budget import Phase
    from pytest_nnscale.measurement import Measurement
    from pytest_nnscale.options import Options
    from pytest_nnscale.power.wanted import Wanted


def _undisturbed(_device: str) -> AbstractContextManager[Any]:
    """Hold nobody off."""
    return nullcontext()


def _untold(_phase: Phase, _subject: str) -> None:
    """Tell nobody."""


class Effort(NamedTuple):
    """What a sampled measurement may take, in seconds, and with which confidence it speaks.

    `quiet` returns what holds others off a device while it is measured. `timer`, where given,
    stands in for the meter of latency: it takes the call, and by keyword its quantile and device.
    `about` is told beforehand in which phase it is, and what is called.
    `flush_l2` empties a GPU's cache before each call that is timed. `energy` says which joules are
    wanted, where it is not what the device has.
    """

    max_time_s: float = 5.0
    confidence: float = 0.99
    quiet: Callable[[str], AbstractContextManager[Any]] = _undisturbed
    timer: Callable[..., Measurement] | None = None
    flush_l2: bool = False
    about: Callable[[Phase, str], None] = _untold
    energy: Wanted | None = None


def asked(options: Options, quiet: Callable[[str], AbstractContextManager[Any]]) -> Effort:
    """Return what the options of a session, or of a profile, say."""
    return Effort(
        options.max_time,
        options.confidence,
        quiet,
        flush_l2=options.flush_l2,
        energy=options.wanted,
    )
