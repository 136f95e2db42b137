"""Restarts: both workers started anew, over and over, until every test is decided.

All tests that are still undecided run in each restart, in the same order on both sides, and in each
of them the two workers take turns.
"""

from __future__ import annotations

import os.path
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

from pytest_nnscale.ab.channel import Message
from pytest_nnscale.ab.comparison import Comparison, Report, Side
from pytest_nnscale.ab.meeting import Meeting, Quiet
from pytest_nnscale.ab.pair import Plan
from pytest_nnscale.ab.partner import Died, Partner, Place
from pytest_nnscale.ab.ratio import Change
from pytest_nnscale.ab.stopping import held_back
from pytest_nnscale.ab.trial import Trial
from pytest_nnscale.errors import CannotCompare

# What is said of a worker from which nothing has come for a while begins with this.
WAITING = "still waiting"

# Told what is under way, how many restarts of tests are done, and how many are planned so far.
Progress = Callable[[str, int, int], None]


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
        unchanged: Callable[[], None] = lambda: None,
    ) -> None:
        self._places = (base, head)
        self._arguments = arguments
        self._plan = plan
        self._confidence = confidence
        self._quiet = quiet
        self._progress = progress
        self._unchanged = unchanged
        # What a restart takes besides its tests: starting both workers, and ending them.
        self._around_s: list[float] = []
        self._trials: dict[str, Trial] = {}
        self._files: tuple[dict[str, str], dict[str, str]] = ({}, {})
        self._alone: tuple[Comparison, ...] = ()
        self._sides: tuple[Side, Side] | None = None
        self._done = 0
        self._under_way = ""

    def compare(self) -> Report:
        """Restart both sides until all is decided; CannotCompare says why that cannot be."""
        begun_s = time.monotonic()
        restarts = 0
        while not restarts or self._undecided():
            restarts += 1
            restart_s, tests_s = time.monotonic(), self._tests_s
            self._restart(restarts)
            self._around_s.append(time.monotonic() - restart_s - (self._tests_s - tests_s))
            # What is no longer the code that was meant is not worth another restart.
            self._unchanged()
        for trial in self._trials.values():
            if not trial.seen_through:
                trial.settle(
                    Change.UNMEASURED,
                    "whose code it ran is not known: other tests ended all its restarts",
                    remedy="leave those out: nnscale ab BASE -- --deselect TEST",
                )
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

    @property
    def _tests_s(self) -> float:
        return sum(trial.spent_s + trial.lost_s for trial in self._trials.values())

    def _undecided(self) -> list[Trial]:
        return [trial for trial in self._trials.values() if not trial.decided]

    def _restart(self, number: int) -> None:
        self._tell(number, "starting")
        with self._quiet.testing("nnscale ab"), ExitStack() as running:
            # Neither is always the first to start, nor the first to time.
            swapped = number % 2 == 0
            started: dict[int, Partner] = {}
            for side in (1, 0) if swapped else (0, 1):
                files = sorted({self._files[side][trial.test] for trial in self._undecided()})
                words = self._arguments_of(side)
                with held_back():
                    started[side] = Partner(self._places[side], words, files, waits=self._wait)
                    running.enter_context(started[side])
            base, head = started[0], started[1]
            found = base.collected(), head.collected()
            if self._sides is None:
                self._note_collected(*found)
            trials = self._undecided()
            for side, partner in ((0, base), (1, head)):
                self._check(trials, found[side], partner)
                partner.run([trial.test for trial in trials])
            for trial in trials:
                self._tell(number, trial.test)
                if not self._has_run(trial, base, head, head_first=swapped):
                    return  # the next restart goes on with those that follow it
                self._done += 1
            base.finish()
            head.finish()
            self._sides = self._sides_of(found, (base.threads, head.threads))
            for trial in trials:
                trial.seen_through = True

    def _arguments_of(self, side: int) -> list[str]:
        return [self._places[side].tree.moved(argument) for argument in self._arguments]

    def _note_collected(self, base: Message, head: Message) -> None:
        self._files = (base["tests"], head["tests"])
        self._sides = self._sides_of((base, head), (None, None))
        confidence = self._confidence or head["confidence"]
        self._plan = replace(self._plan, confidence=confidence)
        folder = self._places[1].tree.folder
        self._trials = {
            test: Trial(test, file=os.path.relpath(file, folder))
            for test, file in head["tests"].items()
            if test in base["tests"]
        }
        self._alone = (
            *(Comparison(t, Change.ONLY_IN_BASE) for t in base["tests"] if t not in head["tests"]),
            *(Comparison(t, Change.ONLY_IN_HEAD) for t in head["tests"] if t not in base["tests"]),
        )

    def _sides_of(
        self, found: tuple[Message, Message], threads: tuple[int | None, int | None]
    ) -> tuple[Side, Side]:
        base, head = (
            Side(place.tree.name, place.tree.commit, told["versions"], number)
            for place, told, number in zip(self._places, found, threads, strict=True)
        )
        return base, head

    def _check(self, trials: Sequence[Trial], found: Message, partner: Partner) -> None:
        for trial in trials:
            if trial.test not in found["tests"]:
                raise CannotCompare(
                    f"{partner.tree.side} ({partner.tree.name}): {trial.test} was collected at first, "
                    "and in a later restart it was not"
                )

    def _has_run(self, trial: Trial, base: Partner, head: Partner, *, head_first: bool) -> bool:
        """Run a test on both sides; False where a worker died of it, which ends the trial."""
        meeting = Meeting(base, head, head_first=head_first)
        try:
            meeting.run(trial, self._quiet, calls_s=self._plan.calls_s)
        except Died as died:
            trial.settle(
                Change.UNMEASURED,
                str(died),
                remedy="run it by itself, and look at what it does to the process",
                output=died.output,
            )
            return False
        around_s = statistics.fmean(self._around_s or [0.0])
        trial.close_restart(*meeting.endings, self._plan, around_s)
        return True

    def _tell(self, number: int, what: str) -> None:
        least = self._plan.least
        planned = sum(
            trial.restarts if trial.decided else trial.planned or max(least, trial.restarts + 1)
            for trial in self._trials.values()
        )
        self._under_way = f"restart {number}: {what}"
        self._progress(self._under_way, self._done, planned)

    def _wait(self, side: str, seconds: float) -> None:
        what = f"{WAITING} for {side} after {seconds:.0f} s; {self._under_way}"
        self._progress(what, self._done, 0)
