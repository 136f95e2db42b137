"""A window: what some counters gained between two of their updates, a call, and how surely that is known."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from pytest_nnscale.power.watch import Update, Watch
from pytest_nnscale.student import student_quantile

# Into as many pieces a window is cut to see how much they differ; with fewer than these it is not known.
_PIECES, FEWEST_PIECES = 10, 4


class Window(NamedTuple):
    """Joules a call, with half the width of its interval; `quantised` is the part that counters' steps make.

    `pieces` are the joules a call of the parts that the window was cut into.
    """

    joules: float
    half_j: float
    quantised_j: float
    watts: float
    calls: float
    seconds: float
    pieces: tuple[float, ...]


def window_of(watches: Sequence[Watch], *, error: float) -> Window | None:
    """Return the window over all updates that were seen; None where they are too few to tell.

    The interval, which misses the truth with a probability of at most `error`, is Student's over the
    pieces, wider by what is not known of both ends.
    """
    pieces = min(_PIECES, *(len(watch.updates) - 1 for watch in watches))
    if pieces < FEWEST_PIECES:
        return None
    cuts = [_cut(watch.updates, pieces) for watch in watches]
    samples = [
        sum(_joules_a_call(updates[n], updates[n + 1]) for updates in cuts) for n in range(pieces)
    ]
    if math.inf in samples:  # a part of one call
        return None
    joules = sum(_joules_a_call(updates[0], updates[-1]) for updates in cuts)
    quantised_j = sum(
        _quantised_j(updates[0], updates[-1], watch.counter.resolution_j)
        for updates, watch in zip(cuts, watches, strict=True)
    )
    scatter_j = statistics.stdev(samples) / math.sqrt(pieces)
    return Window(
        joules,
        student_quantile(1 - error / 2, pieces - 1) * scatter_j + quantised_j,
        quantised_j,
        sum(_watts(updates[0], updates[-1]) for updates in cuts),
        max(updates[-1].calls - updates[0].calls for updates in cuts),
        max(updates[-1].at_s - updates[0].at_s for updates in cuts),
        tuple(samples),
    )


def watts_of(watches: Sequence[Watch]) -> float | None:
    """Return the mean power between the first and the last update of each; None where there are no two."""
    if any(len(watch.updates) < 2 for watch in watches):
        return None
    return sum(_watts(watch.updates[0], watch.updates[-1]) for watch in watches)


def unsure_watts_of(watches: Sequence[Watch]) -> float:
    """Return how far `watts_of` may be off: by a step of each counter, and by when updates came."""
    unsure_w = 0.0
    for watch in watches:
        start, end = watch.updates[0], watch.updates[-1]
        unsure_s = (start.late_s - start.early_s + end.late_s - end.early_s) / 2
        least_s = end.at_s - start.at_s - unsure_s
        if least_s <= 0:
            return math.inf
        most_w = (end.joules - start.joules + watch.counter.resolution_j) / least_s
        unsure_w += most_w - _watts(start, end)
    return unsure_w


def _cut(updates: Sequence[Update], pieces: int) -> list[Update]:
    """Choose the updates that lie closest to equal cuts of the time between the first and the last."""
    first, last = updates[0], updates[-1]
    cuts, place = [first], 0
    for n in range(1, pieces):
        at_s = first.at_s + n / pieces * (last.at_s - first.at_s)
        most = len(updates) - 1 - (pieces - n)  # one is left for each cut that follows
        place += 1
        while place < most and updates[place].at_s < at_s:
            place += 1
        cuts.append(updates[place])
    return [*cuts, last]


def _joules_a_call(start: Update, end: Update) -> float:
    calls = end.calls - start.calls
    return (end.joules - start.joules) / calls if calls > 0 else math.inf


def _watts(start: Update, end: Update) -> float:
    return (end.joules - start.joules) / (end.at_s - start.at_s)


def _quantised_j(start: Update, end: Update, step_j: float) -> float:
    """Return how far the joules a call may be off: by a step of the counter, and by parts of calls."""
    calls, joules = end.calls - start.calls, end.joules - start.joules
    unsure_calls = start.unsure_calls + end.unsure_calls
    if calls <= unsure_calls:
        return math.inf
    return (joules + step_j) / (calls - unsure_calls) - joules / calls
