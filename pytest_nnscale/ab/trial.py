"""One test on trial: what its restarts have given so far, and what they say."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_nnscale.ab.channel import Message
from pytest_nnscale.ab.comparison import Comparison, Timing
from pytest_nnscale.ab.ratio import (
    Change,
    Look,
    judge_ratio,
    plan_looks,
    ratio_of,
    restarts_to_decide,
)
from pytest_nnscale.ab.turns import Turns
from pytest_nnscale.measurement import Measurement


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


@dataclass
class Pair:
    """One call of a test, which both trees have."""

    turns: list[Turns] = field(default_factory=list)
    looks: Sequence[Look] = ()
    change: Change = Change.INCONCLUSIVE
    timing: Timing | None = None
    remedy: str = ""
    decided: bool = False

    def look(self, plan: Plan, each_s: float) -> None:
        """Look at the interval, where it is time to; a restart has taken `each_s` so far.

        How often to look is fixed before the first look, from the time that there is alone.
        """
        restarts = len(self.turns)
        if restarts == plan.least:
            self.looks = plan_looks(plan.least, int(plan.max_time_s / each_s))
        shares = {look.restarts: look.share for look in self.looks}
        if restarts not in shares:
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
        self.decided = self.change is not Change.INCONCLUSIVE or restarts == self.looks[-1].restarts
        if self.change is Change.INCONCLUSIVE:
            needed = restarts_to_decide(logs, error=error, threshold=plan.threshold)
            self.remedy = (
                f"give it longer: --max-time={1.25 * needed * each_s:.0f}"
                if needed
                else "it is too noisy, or too close to the threshold: choose another, or a quieter machine"
            )


class Trial:
    """A test that both trees have."""

    def __init__(self, test: str) -> None:
        self.test = test
        self.spent_s = 0.0
        self.restarts = 0
        self._pairs: dict[int, Pair] = {}
        self._told: dict[int, tuple[Message, Message]] = {}
        self._others: tuple[Comparison, ...] = ()
        self._settled: Comparison | None = None

    @property
    def decided(self) -> bool:
        """Whether another restart would say no more."""
        if not self.restarts:
            return False
        return self._settled is not None or all(pair.decided for pair in self._pairs.values())

    @property
    def planned(self) -> int:
        """How many restarts there are until it is looked at next; 0 while that is not known."""
        looks = [look.restarts for p in self._pairs.values() if not p.decided for look in p.looks]
        return min((restarts for restarts in looks if restarts > self.restarts), default=0)

    def wants(self, ordinal: int) -> bool:
        """Tell whether a call has to be timed once more."""
        return self._settled is None and not (
            ordinal in self._pairs and self._pairs[ordinal].decided
        )

    def add(self, ordinal: int, turns: Turns) -> None:
        """Take in what a call gave in this restart."""
        self._pairs.setdefault(ordinal, Pair()).turns.append(turns)

    def settle(self, change: Change, reason: str, *, remedy: str = "", output: str = "") -> None:
        """End the trial, for a reason that no restart can mend; the first one stands."""
        if self._settled is None:
            self._settled = Comparison(
                self.test, change, reason=reason, remedy=remedy, output=output
            )

    def close_restart(self, base: Message, head: Message, plan: Plan, start_s: float) -> None:
        """Take in how the test ended on both sides of a restart, and look at what is there."""
        self.restarts += 1
        self._judge_endings(base, head)
        if self._settled is not None:
            return
        if self.restarts == 1:
            self._note_calls(base, head)
        for ordinal, pair in self._pairs.items():
            if not pair.decided and len(pair.turns) != self.restarts:
                self.settle(
                    Change.UNMEASURED,
                    f"call {ordinal} of it is not made in every run",
                    remedy="have the test make the same calls each time",
                )
                return
        each_s = self.spent_s / self.restarts + start_s
        for pair in self._pairs.values():
            if not pair.decided:
                pair.look(plan, each_s)

    def comparisons(self) -> tuple[Comparison, ...]:
        """Return what came of it: one for each call, or one that says why there is none."""
        if self._settled is not None:
            return (self._settled,)
        paired = tuple(
            Comparison(
                self.test,
                pair.change,
                timing=pair.timing,
                remedy=pair.remedy,
                **_described(self._told[ordinal]),
            )
            for ordinal, pair in self._pairs.items()
        )
        return (*paired, *self._others)

    def _judge_endings(self, base: Message, head: Message) -> None:
        sides = {"base": base, "head": head}
        for side, ended in sides.items():
            if ended["outcome"] == "failed":
                self.settle(
                    Change.UNMEASURED,
                    f"it fails in {side}: {ended['why']}",
                    remedy="a test that fails times nothing of worth: repair it first",
                    output=ended["text"],
                )
        skipped = {side: e["why"] for side, e in sides.items() if e["outcome"] == "skipped"}
        # What this machine lacks is as good as a skip.
        for side, ended in sides.items():
            lacks = [each for each in ended["lacking"] if each["missing"]]
            if lacks and not ended["calls"]:
                skipped.setdefault(side, lacks[0]["reason"])
        if len(skipped) == 2:
            self.settle(Change.SKIPPED, skipped["head"])
        for side, why in skipped.items():
            other = Change.ONLY_IN_HEAD if side == "base" else Change.ONLY_IN_BASE
            self.settle(other, f"skipped in {side}: {why}")
        for side, ended in sides.items():
            for each in ended["lacking"]:
                if not each["missing"]:
                    reason = f"{side}: {each['reason']}"
                    self.settle(Change.UNMEASURED, reason, remedy=each["remedy"])
        if not base["calls"] and not head["calls"]:
            self.settle(
                Change.SKIPPED, "it runs no model: the budget that it inherits does not apply to it"
            )

    def _note_calls(self, base: Message, head: Message) -> None:
        calls = [{call["ordinal"]: call for call in ended["calls"]} for ended in (base, head)]
        in_base, in_head = calls
        self._told = {n: (in_base[n], in_head[n]) for n in in_base.keys() & in_head.keys()}
        only = [(in_base[n], Change.ONLY_IN_BASE) for n in in_base.keys() - in_head.keys()]
        only += [(in_head[n], Change.ONLY_IN_HEAD) for n in in_head.keys() - in_base.keys()]
        self._others = tuple(
            Comparison(
                self.test, change, call["call"], call["phase"], call["subject"],
                reason="the other side makes fewer calls",
            )
            for call, change in only
        )  # fmt: skip


def _described(told: tuple[Message, Message]) -> dict[str, Any]:
    base, head = told
    return {
        "call": head["call"],
        "phase": head["phase"],
        "subject": head["subject"],
        "base": tuple(Measurement.from_dict(found) for found in base["exact"]),
        "head": tuple(Measurement.from_dict(found) for found in head["exact"]),
    }
