"""One test on trial: what its restarts have given so far, and what they say."""

from __future__ import annotations

from typing import Any

from pytest_nnscale.ab.channel import Message
from pytest_nnscale.ab.comparison import Comparison
from pytest_nnscale.ab.pair import Key, Pair, Plan
from pytest_nnscale.ab.ratio import Change
from pytest_nnscale.ab.turns import Turns
from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.measurement import Measurement

Calls = dict[Key, Message]


class Trial:
    """A test that both trees have; `file` is where it stands, from where the command was started."""

    def __init__(self, test: str, *, file: str = "") -> None:
        self.test = test
        self.file = file
        self.spent_s, self.lost_s = 0.0, 0.0
        self.restarts = 0
        # Whether a restart in which it ran came to its end, where it is seen whose code that was.
        self.seen_through = False
        self._pairs: dict[Key, Pair] = {}
        self._told: dict[Key, tuple[Message, Message]] = {}
        self._others: tuple[Comparison, ...] = ()
        self._settled: Comparison | None = None

    @property
    def decided(self) -> bool:
        """Whether another restart would say no more."""
        if self._settled is not None:
            return True
        return bool(self.restarts) and all(pair.decided for pair in self._pairs.values())

    @property
    def planned(self) -> int:
        """How many restarts there are until it is looked at next; 0 while that is not known."""
        missing = [pair.missing for pair in self._pairs.values() if not pair.decided]
        return self.restarts + min(missing) if missing and all(missing) else 0

    def wants(self, key: Key) -> bool:
        """Tell whether a call has to be timed once more."""
        return self._settled is None and not (key in self._pairs and self._pairs[key].decided)

    def add(self, key: Key, turns: Turns) -> None:
        """Take in what a call gave in this restart."""
        self._pairs.setdefault(key, Pair()).turns.append(turns)

    def lose(self, key: Key, error: CannotMeasure) -> None:
        """Go without this restart of a call, which somebody has disturbed."""
        # The option that a session has is one of the command here.
        remedy = error.remedy.replace("--nnscale-max-wait", "--max-wait")
        self._pairs.setdefault(key, Pair()).lose(error.reason, remedy=remedy)

    def refuse(self, key: Key, reason: str, *, remedy: str = "") -> None:
        """Leave a call unmeasured, whatever becomes of the others."""
        self._pairs.setdefault(key, Pair()).refuse(reason, remedy=remedy)

    def settle(self, change: Change, reason: str, *, remedy: str = "", output: str = "") -> None:
        """End the trial, for a reason that no restart can mend; the first one stands."""
        if self._settled is None:
            self._settled = Comparison(
                self.test, change, reason=reason, remedy=remedy, output=output, file=self.file
            )

    def close_restart(self, base: Message, head: Message, plan: Plan, around_s: float) -> None:
        """Take in how the test ended on both sides of a restart, and look at what is there."""
        self.restarts += 1
        self._judge_endings(base, head)
        if self._settled is not None:
            return
        in_base, in_head = _by_key(base), _by_key(head)
        if self.restarts == 1:
            self._note_calls(in_base, in_head)
        for key, pair in self._pairs.items():
            for side, calls in (("base", in_base), ("head", in_head)):
                disturbed = calls.get(key, {}).get("disturbed")
                if disturbed and not pair.decided:
                    pair.disturbed[f"{disturbed} in {side}"] += 1
            made = len(pair.turns) + pair.lost
            if key not in self._told or (not pair.decided and made != self.restarts):
                self.settle(
                    Change.UNMEASURED,
                    f"{key} of it is not made in every run",
                    remedy="have the test make the same calls each time",
                )
                return
        each_s = self.spent_s / self.restarts + around_s
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
                key.call,
                key.phase,
                timing=pair.timing,
                reason=_joined(_renamed(*self._told[key]) if pair.timing else "", pair.reason),
                remedy=pair.remedy,
                file=self.file,
                **_described(*self._told[key]),
            )
            for key, pair in self._pairs.items()
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

    def _note_calls(self, base: Calls, head: Calls) -> None:
        """Note which calls are each other's, and which have no counterpart."""
        self._told = {key: (base[key], head[key]) for key in base if key in head}
        only = [(key, Change.ONLY_IN_BASE, base[key], head) for key in base if key not in head]
        only += [(key, Change.ONLY_IN_HEAD, head[key], base) for key in head if key not in base]
        self._others = tuple(
            Comparison(
                self.test, change, key.call, key.phase, call["subject"],
                reason=f"the other side makes {_listed(others)}", file=self.file,
            )
            for key, change, call, others in only
        )  # fmt: skip
        for key, (ours, theirs) in self._told.items():
            if _may_be_anothers(key, ours["subject"], theirs["subject"], base, head):
                self.refuse(
                    key,
                    f"base makes {_listed(base)}, head {_listed(head)}: which of them belong "
                    "together is not known",
                    remedy="let the test make new calls after those that it has made so far",
                )


def _by_key(ended: Message) -> Calls:
    return {Key.of(call): call for call in ended["calls"]}


def _may_be_anothers(key: Key, ours: str, theirs: str, base: Calls, head: Calls) -> bool:
    """Tell whether a call may be the counterpart of another one than of that in the same place.

    What is called by another name now may still be the same, if nothing else is.
    """
    if ours == theirs:
        return False
    in_base, in_head = (
        [call["subject"] for other, call in calls.items() if other.phase == key.phase]
        for calls in (base, head)
    )
    return len(in_base) != len(in_head) or ours in in_head or theirs in in_base


def _listed(calls: Calls) -> str:
    told = [f"{key} of {call['subject']}" for key, call in calls.items()]
    return ", ".join(told) or "no call that is timed"


def _joined(*texts: str) -> str:
    return "; ".join(text for text in texts if text)


def _renamed(base: Message, head: Message) -> str:
    if base["subject"] == head["subject"]:
        return ""
    return f"base calls {base['subject']}, head {head['subject']}"


def _described(base: Message, head: Message) -> dict[str, Any]:
    return {
        "subject": head["subject"],
        "base": tuple(Measurement.from_dict(found) for found in base["exact"]),
        "head": tuple(Measurement.from_dict(found) for found in head["exact"]),
    }
