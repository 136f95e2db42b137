"""A watch: one counter, looked at between calls, and the updates that were seen of it.

A counter that moves ten times a second says nothing about a moment between two updates. So windows
reach from one update to another, and an update that came in the middle of a call counts that call by
the part of its time that was over.
"""

from __future__ import annotations

from typing import NamedTuple

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.power.counter import EnergyCounter


class Update(NamedTuple):
    """A counter came to `joules`, between two moments; `calls` had been made at these, parts included."""

    joules: float
    early_s: float
    late_s: float
    early_calls: float
    late_calls: float

    @property
    def at_s(self) -> float:
        """The middle of both moments."""
        return (self.early_s + self.late_s) / 2

    @property
    def calls(self) -> float:
        """The calls that had been made, at the middle."""
        return (self.early_calls + self.late_calls) / 2

    @property
    def unsure_calls(self) -> float:
        """How far the truth may be from `calls`."""
        return (self.late_calls - self.early_calls) / 2


# A counter that has not moved for so many times as long as it took before has stopped.
_STOPPED = 10


class Watch:
    """What one counter did while calls were made."""

    def __init__(self, counter: EnergyCounter) -> None:
        self.counter = counter
        self.updates: list[Update] = []
        self._last: tuple[float, float, float] | None = None
        self._moved_s = 0.0  # the first look, or the last at which it had moved
        self._stood_s = 0.0  # the longest time after which it moved by more than a step

    def look(self, at_s: float, calls: float) -> None:
        """Read the counter: at this moment, so many calls had been made; CannotMeasure where it is lost."""
        try:
            joules = self.counter.read_j()
        except CannotMeasure:
            raise
        except Exception as error:
            raise CannotMeasure(
                f"{self.counter.name} cannot be read: {type(error).__name__}: {error}",
                remedy="measure again, or choose another: nnscale_energy_source",
            ) from error
        if self._last is not None and joules < self._last[0]:
            raise CannotMeasure(
                f"{self.counter.name} went back from {self._last[0]:.6g} J to {joules:.6g} J",
                remedy="measure again",
            )
        if self._last is not None and joules != self._last[0]:
            before_j, before_s, before_calls = self._last
            if joules - before_j > 1.5 * self.counter.resolution_j:
                self._stood_s = max(self._stood_s, before_s - self._moved_s)
            # What has stood still for longer than it states is that slow at the least.
            early_s = max(before_s, at_s - max(self.counter.resolution_s, self._stood_s))
            gap_s = at_s - before_s
            share = (at_s - early_s) / gap_s if gap_s > 0 else 0.0
            early_calls = calls - share * (calls - before_calls)
            self.updates.append(Update(joules, early_s, at_s, early_calls, calls))
            self._moved_s = at_s
        elif self._last is None:
            self._moved_s = at_s
        self._last = joules, at_s, calls

    def check_that_it_moves(self, call_s: float) -> None:
        """Raise CannotMeasure where the counter has stopped: what came since is in no number."""
        if len(self.updates) < 2 or self._last is None:
            return
        first, last = self.updates[0], self.updates[-1]
        usual_s = (last.at_s - first.at_s) / (len(self.updates) - 1)
        stands_s = self._last[1] - last.late_s
        if stands_s > _STOPPED * max(usual_s, self.counter.resolution_s, call_s):
            raise CannotMeasure(
                f"{self.counter.name} stopped: it moved every {usual_s:.2g} s, and not at all in the "
                f"last {stands_s:.2g} s",
                remedy="measure again, and look at the driver if it stops again",
            )

    def begin_anew(self) -> None:
        """Forget what was seen: what comes is another window."""
        self.updates.clear()
        self._last = None
        self._moved_s = 0.0
