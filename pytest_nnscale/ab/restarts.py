"""Restarts: both workers started anew, over and over, until every test is decided.

All tests that are still undecided run in each restart, in the same order on both sides, and in each
of them the two workers take turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from typing import Any, Protocol

from pytest_nnscale.ab.channel import Message
from pytest_nnscale.ab.comparison import Comparison, Report, Side
from pytest_nnscale.ab.partner import Partner, Place
from pytest_nnscale.ab.ratio import Change
from pytest_nnscale.ab.stopping import held_back
from pytest_nnscale.ab.trial import Plan, Trial
from pytest_nnscale.ab.turns import take_turns
from pytest_nnscale.errors import CannotCompare, CannotMeasure

# Told what is under way, how many restarts of tests are done, and how many are planned so far.
Progress = Callable[[str, int, int], None]


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


class Restarts:
    """A comparison under way."""

    def __init__(
        self,
        base: Place,
        head: Place,
        *,
        arguments: Sequence[str],
        plan: Plan,
        confidence: float | None,
        quiet: Quiet,
        progress: Progress,
    ) -> None:
        self._places = (base, head)
        self._arguments = arguments
        self._plan = plan
        self._confidence = confidence
        self._quiet = quiet
        self._progress = progress
        self._starts_s: list[float] = []
        self._trials: dict[str, Trial] = {}
        self._files: tuple[dict[str, str], dict[str, str]] = ({}, {})
        self._alone: tuple[Comparison, ...] = ()
        self._sides: tuple[Side, Side] | None = None
        self._done = 0

    def compare(self) -> Report:
        """Restart both sides until all is decided; CannotCompare says why that cannot be."""
        begun_s = time.monotonic()
        restarts = 0
        while not restarts or self._undecided():
            restarts += 1
            self._restart(restarts)
        comparisons = [c for trial in self._trials.values() for c in trial.comparisons()]
        assert self._sides is not None
        return Report(
            *self._sides,
            self._plan.threshold,
            self._plan.confidence,
            (*comparisons, *self._alone),
            restarts,
            time.monotonic() - begun_s,
        )

    def _undecided(self) -> list[Trial]:
        return [trial for trial in self._trials.values() if not trial.decided]

    def _restart(self, number: int) -> None:
        self._tell(number, "starting")
        with self._quiet.testing("nnscale ab"), ExitStack() as running:
            begun_s = time.monotonic()
            # Neither is always the first to start, nor the first to time.
            swapped = number % 2 == 0
            started: dict[int, Partner] = {}
            for side in (1, 0) if swapped else (0, 1):
                files = sorted({self._files[side][trial.test] for trial in self._undecided()})
                words = self._arguments_of(side)
                with held_back():
                    started[side] = Partner(self._places[side], words, files)
                    running.enter_context(started[side])
            base, head = started[0], started[1]
            found = base.collected(), head.collected()
            self._starts_s.append(time.monotonic() - begun_s)
            if number == 1:
                self._note_collected(*found)
            trials = self._undecided()
            for side, partner in ((0, base), (1, head)):
                self._check(trials, found[side], partner)
                partner.run([trial.test for trial in trials])
            for trial in trials:
                self._tell(number, trial.test)
                self._run(trial, base, head, head_first=swapped)
                self._done += 1
            base.finish()
            head.finish()
            self._sides = (
                Side(base.tree.name, base.tree.commit, found[0]["versions"], base.threads),
                Side(head.tree.name, head.tree.commit, found[1]["versions"], head.threads),
            )

    def _arguments_of(self, side: int) -> list[str]:
        return [self._places[side].tree.moved(argument) for argument in self._arguments]

    def _note_collected(self, base: Message, head: Message) -> None:
        self._files = (base["tests"], head["tests"])
        confidence = self._confidence or head["confidence"]
        self._plan = replace(self._plan, confidence=confidence)
        self._trials = {test: Trial(test) for test in head["tests"] if test in base["tests"]}
        self._alone = (
            *(Comparison(t, Change.ONLY_IN_BASE) for t in base["tests"] if t not in head["tests"]),
            *(Comparison(t, Change.ONLY_IN_HEAD) for t in head["tests"] if t not in base["tests"]),
        )

    def _check(self, trials: Sequence[Trial], found: Message, partner: Partner) -> None:
        for trial in trials:
            if trial.test not in found["tests"]:
                raise CannotCompare(
                    f"{partner.tree.side} ({partner.tree.name}): {trial.test} was collected at first, "
                    "and in a later restart it was not"
                )

    def _run(self, trial: Trial, base: Partner, head: Partner, *, head_first: bool) -> None:
        begun_s = time.monotonic()
        at_base, at_head = base.advance(), head.advance()
        while at_base["is"] == at_head["is"] == "ready":
            if at_base["ordinal"] != at_head["ordinal"]:
                trial.settle(Change.UNMEASURED, "it does not make its calls in the same order")
            elif trial.wants(at_base["ordinal"]):
                self._time(trial, at_base, base, head, head_first=head_first)
            base.go_on()
            head.go_on()
            at_base, at_head = base.advance(), head.advance()
        at_base, at_head = _to_its_end(base, at_base), _to_its_end(head, at_head)
        trial.spent_s += time.monotonic() - begun_s
        trial.close_restart(at_base, at_head, self._plan, statistics.fmean(self._starts_s))

    def _time(
        self, trial: Trial, ready: Message, base: Partner, head: Partner, *, head_first: bool
    ) -> None:
        try:
            with self._quiet.measuring(ready["device"]):
                turns = take_turns(base, head, time_s=self._plan.calls_s, head_first=head_first)
        except CannotMeasure as error:
            trial.settle(Change.UNMEASURED, error.reason, remedy=error.remedy)
        else:
            trial.add(ready["ordinal"], turns)

    def _tell(self, number: int, what: str) -> None:
        least = self._plan.least
        planned = sum(
            trial.restarts if trial.decided else trial.planned or max(least, trial.restarts + 1)
            for trial in self._trials.values()
        )
        self._progress(f"restart {number}: {what}", self._done, planned)


def _to_its_end(partner: Partner, at: Message) -> Message:
    """Let a test go on to its end, past calls that the other side does not make."""
    while at["is"] == "ready":
        partner.go_on()
        at = partner.advance()
    return at
