"""A pair: one call that a test makes in both trees, and what its restarts have given so far."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pytest_nnscale.ab.channel import Message
from pytest_nnscale.ab.comparison import Timing
from pytest_nnscale.ab.ratio import (
    Change,
    Look,
    judge_ratio,
    plan_looks,
    ratio_of,
    restarts_to_decide,
)
from pytest_nnscale.ab.turns import Turns
from pytest_nnscale.budget import Phase

# So often a restart may be lost to others on the machine, or as often as one was not.
_MOST_LOST = 2
# Starts of one process differ by some per cent. Where they differ by as much as this, threads that wait
# for a core they do not get decide the times: some 800 times as long for a call of 40 us with two threads
# beside one busy core, from one start to its end. No interval over a few such restarts is to be believed.
_MOST_APART = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a comparison may take, and how surely it speaks; six restarts are made whatever they take.

    `threshold` is 0.05 for five per cent, `max_time_s` for each test, `calls_s` for the calls of a
    test in one restart.
    """

    threshold: float = 0.05
    confidence: float = 0.99
    max_time_s: float = 60.0
    least: int = 6
    calls_s: float = 1.5


class Key(NamedTuple):
    """What makes two calls each other's counterpart; of one test they come in this order."""

    call: int
    phase: Phase

    @classmethod
    def of(cls, message: Message) -> Key:
        """Return the key of a call that is ready, or of one that was made."""
        return cls(message["call"], message["phase"])

    def __str__(self) -> str:
        made = f"call {self.call}" if self.call else "the call in its body"
        return f"{made} ({self.phase})"


@dataclass
class Pair:
    """What the restarts of one call have given."""

    turns: list[Turns] = field(default_factory=list)
    looks: Sequence[Look] = ()
    change: Change = Change.INCONCLUSIVE
    timing: Timing | None = None
    reason: str = ""
    remedy: str = ""
    decided: bool = False
    lost: int = 0
    disturbed: Counter[str] = field(default_factory=Counter)

    @property
    def missing(self) -> int:
        """How many more restarts there are until it is looked at next; 0 while that is not known."""
        ahead = [look.restarts - len(self.turns) for look in self.looks]
        return min((restarts for restarts in ahead if restarts > 0), default=0)

    def refuse(self, reason: str, *, remedy: str = "") -> None:
        """Leave it unmeasured, for a reason that no restart can mend."""
        self.change, self.timing, self.decided = Change.UNMEASURED, None, True
        self.reason, self.remedy = reason, remedy

    def lose(self, reason: str, *, remedy: str) -> None:
        """Go without this restart; what is lost again and again is never measured."""
        self.lost += 1
        if self.lost > max(_MOST_LOST, len(self.turns)):
            self.refuse(f"{reason}, in {self.lost} restarts", remedy=remedy)

    def look(self, plan: Plan, each_s: float) -> None:
        """Look at the interval, where it is time to; a restart has taken `each_s` so far.

        How often to look is fixed before the first look, from the time that there is alone.
        """
        restarts = len(self.turns)
        if restarts == plan.least and not self.looks:
            self.looks = plan_looks(plan.least, int(plan.max_time_s / each_s))
        shares = {look.restarts: look.share for look in self.looks}
        # One that was lost leaves nothing new to look at.
        if restarts not in shares or (self.timing and len(self.timing.logs) == restarts):
            return
        logs = [turns.log_ratio for turns in self.turns]
        error = (1 - plan.confidence) * shares[restarts]
        self.timing = Timing(
            ratio_of(logs, error=error),
            statistics.median(turns.base_s for turns in self.turns),
            statistics.median(turns.head_s for turns in self.turns),
            tuple(logs),
            tuple((turns.base_s, turns.head_s) for turns in self.turns),
        )
        self.change = judge_ratio(self.timing.ratio, plan.threshold)
        apart = self._apart()
        if apart:
            self.change = Change.INCONCLUSIVE
        self.decided = self.change is not Change.INCONCLUSIVE or restarts == self.looks[-1].restarts
        if self.change is Change.INCONCLUSIVE:
            needed = restarts_to_decide(logs, error=error, threshold=plan.threshold)
            self.remedy = (
                f"give it longer: --max-time={1.25 * needed * each_s:.0f}"
                if needed
                else "it is too noisy, or too close to the threshold: choose another, or a quieter machine"
            )
        if apart:
            self.reason = apart
            self.remedy = "have nothing else run, or use fewer threads than there are free cores"
        self._doubt()

    def _apart(self) -> str:
        """Say of which side the restarts are too far apart for an interval; "" of none."""
        for side in ("base", "head"):
            seconds = [getattr(turns, f"{side}_s") for turns in self.turns]
            factor = max(seconds) / min(seconds)
            if factor > _MOST_APART:
                return f"{side} took {factor:.3g} times as long in one restart as in another"
        return ""

    def _doubt(self) -> None:
        """Say nothing for sure of what was disturbed in any of its restarts."""
        if not self.disturbed:
            return
        self.change = Change.INCONCLUSIVE
        self.reason = "; ".join(
            f"{why}, in {times} of {len(self.turns)} restarts"
            for why, times in self.disturbed.items()
        )
        self.remedy = (
            "let the GPU cool down, or lock its clocks below what it can hold "
            "(nvidia-smi --lock-gpu-clocks), and compare again"
        )
