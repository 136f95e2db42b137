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


class Watch:
    """What one counter did while calls were made."""

    def __init__(self, counter: EnergyCounter) -> None:
        self.counter = counter
        self.updates: list[Update] = []
        self._last: tuple[float, float, float] | None = None

    def look(self, at_s: float, calls: float) -> None:
        """Read the counter: at this moment, so many calls had been made; CannotMeasure passes through."""
        joules = self.counter.read_j()
        if self._last is not None and joules < self._last[0]:
            raise CannotMeasure(
                f"{self.counter.name} went back from {self._last[0]:.6g} J to {joules:.6g} J",
                remedy="measure again",
            )
        if self._last is not None and joules != self._last[0]:
            _, before_s, before_calls = self._last
            early_s = max(before_s, at_s - self.counter.resolution_s)
            gap_s = at_s - before_s
            share = (at_s - early_s) / gap_s if gap_s > 0 else 0.0
            early_calls = calls - share * (calls - before_calls)
            self.updates.append(Update(joules, early_s, at_s, early_calls, calls))
        self._last = joules, at_s, calls

    def begin_anew(self) -> None:
        """Forget what was seen: what comes is another window."""
        self.updates.clear()
        self._last = None
