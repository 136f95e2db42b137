"""Idle power: what the counters say while nothing is done here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pytest_nnscale.power.watch import Watch
from pytest_nnscale.power.window import unsure_watts_of, watts_of

# Threads of OpenMP go on spinning for some milliseconds after the last call.
_SETTLE_S = 0.05


class Idle(NamedTuple):
    """The power of a machine that does nothing, and how far the truth may be from it."""

    watts: float
    unsure_w: float


def idle_watts(
    watches: Sequence[Watch],
    *,
    for_s: float,
    every_s: float,
    settle_s: float = 0.0,
    now_s: Callable[[], float],
    pause: Callable[[float], object] = time.sleep,
) -> Idle | None:
    """Return the power of a machine that does nothing for a while; None where too few updates came.

    What was before is let go for `settle_s` first. CannotMeasure of a counter passes through.
    """
    pause(max(_SETTLE_S, settle_s))
    _begin_anew(watches)
    until_s = now_s() + for_s
    while (at_s := now_s()) < until_s:
        for watch in watches:
            watch.look(at_s, 0)
        pause(every_s)
    watts = watts_of(watches)
    idle = None if watts is None else Idle(watts, unsure_watts_of(watches))
    _begin_anew(watches)
    return idle


def _begin_anew(watches: Sequence[Watch]) -> None:
    for watch in watches:
        watch.begin_anew()
