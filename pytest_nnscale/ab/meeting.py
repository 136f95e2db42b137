"""A meeting: one test in one restart, on both sides, which take turns at each call that both make."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from pytest_nnscale.ab.channel import Message
from pytest_nnscale.ab.pair import Key
from pytest_nnscale.ab.ratio import Change
from pytest_nnscale.ab.trial import Trial
from pytest_nnscale.ab.turns import Side, Turns, take_turns
from pytest_nnscale.errors import CannotMeasure


class Quiet(Protocol):
    """What holds others off: see `timing/quiet.py`."""

    def testing(self, what: str) -> AbstractContextManager[Any]:
        """Hold the measurements of others off, while tests run here."""

    def measuring(self, device: str) -> AbstractContextManager[Any]:
        """Hold the tests of others off as well, while a device is measured."""


class Undisturbed:
    """Holds nobody off."""

    def testing(self, what: str) -> AbstractContextManager[Any]:
        """Do nothing."""
        del what
        return nullcontext()

    measuring = testing


class Tested(Side, Protocol):
    """A side inside a test: see `Partner`."""

    def advance(self) -> Message:
        """Return the call that it comes to next, or how the test ended."""

    def go_on(self) -> None:
        """Have it go on with its test."""


class Meeting:
    """Two sides that both run the same test now; neither times while the other one does."""

    def __init__(self, base: Tested, head: Tested, *, head_first: bool) -> None:
        self._base, self._head = base, head
        self._head_first = head_first
        self.endings: tuple[Message, Message] = ({}, {})

    def run(self, trial: Trial, quiet: Quiet, *, calls_s: float) -> None:
        """Let the test run to its end on both sides, and the trial have what is timed meanwhile."""
        begun_s, lost_s = time.monotonic(), 0.0
        base, head = self._base, self._head
        at_base, at_head = base.advance(), head.advance()
        while at_base["is"] == at_head["is"] == "ready":
            ours, theirs = Key.of(at_base), Key.of(at_head)
            if ours == theirs and trial.wants(ours):
                lost_s += self._time(trial, at_base, at_head, quiet, calls_s)
            # The earlier of two different calls is one that the other side does not make.
            passing = ours <= theirs, theirs <= ours
            for side, passes in zip((base, head), passing, strict=True):
                if passes:
                    side.go_on()
            at_base = base.advance() if passing[0] else at_base
            at_head = head.advance() if passing[1] else at_head
        self.endings = _to_its_end(base, at_base), _to_its_end(head, at_head)
        trial.spent_s += time.monotonic() - begun_s - lost_s
        trial.lost_s += lost_s

    def _time(
        self, trial: Trial, at_base: Message, at_head: Message, quiet: Quiet, calls_s: float
    ) -> float:
        """Time a call on both sides, and return the seconds that were lost over it."""
        key, devices = Key.of(at_base), (at_base["device"], at_head["device"])
        if devices[0] != devices[1]:
            trial.refuse(
                key,
                f"{key} runs on {devices[0]} in base, and on {devices[1]} in head",
                remedy="have both run on the same device",
            )
            return 0.0
        begun_s = time.monotonic()
        try:
            with quiet.measuring(devices[0]):
                turns = self._turns(trial, calls_s)
        except CannotMeasure as error:
            # Another restart may be left in peace.
            trial.lose(key, error)
            return time.monotonic() - begun_s
        if turns is not None:
            trial.add(key, turns)
        return 0.0

    def _turns(self, trial: Trial, calls_s: float) -> Turns | None:
        """Let both take turns; None where a side cannot, which ends the trial."""
        try:
            return take_turns(self._base, self._head, time_s=calls_s, head_first=self._head_first)
        except CannotMeasure as error:
            trial.settle(Change.UNMEASURED, error.reason, remedy=error.remedy)
            return None


def _to_its_end(side: Tested, at: Message) -> Message:
    """Let a test go on to its end, past calls that the other side does not make."""
    while at["is"] == "ready":
        side.go_on()
        at = side.advance()
    return at
