"""Meetings: which calls of two sides take turns, and what becomes of those that cannot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from pytest_nnscale.ab.meeting import Meeting, Undisturbed
from pytest_nnscale.ab.pair import Key, Plan
from pytest_nnscale.ab.ratio import Change
from pytest_nnscale.ab.trial import Trial
from pytest_nnscale.errors import CannotMeasure


class Side:
    """A side whose calls take a known time; it makes them one after the other."""

    def __init__(self, calls: dict[tuple[int, str], float], *, device: str = "cpu") -> None:
        self.made = [
            {"is": "ready", "call": call, "phase": phase, "subject": "Net", "device": device}
            for call, phase in calls
        ]
        self.seconds = list(calls.values())
        self.at = 0
        self.timed: set[int] = set()
        self.waits = False

    def advance(self) -> dict[str, Any]:
        assert not self.waits, "it was asked for the next before it was let go on"
        if self.at == len(self.made):
            calls = [{**call, "exact": []} for call in self.made]
            return {"is": "tested", "outcome": "passed", "why": "", "calls": calls, "lacking": []}
        self.waits = True
        return self.made[self.at]

    def go_on(self) -> None:
        self.waits = False
        self.at += 1

    def take(self, samples: int, *, calls: int) -> Sequence[float]:
        del calls
        self.timed.add(self.at)
        return [self.seconds[self.at]] * samples


def meet(base: Side, head: Side, quiet: Any = None, *, times: int = 6) -> Trial:
    """Let both sides meet in as many restarts as it takes."""
    trial = Trial("t")
    for _ in range(times):
        for side in (base, head):
            side.at, side.waits = 0, False
        meeting = Meeting(base, head, head_first=False)
        meeting.run(trial, quiet or Undisturbed(), calls_s=0.01)
        trial.spent_s += 1
        trial.close_restart(*meeting.endings, Plan(), 2.0)
        if trial.decided:
            break
    return trial


def told(trial: Trial) -> list[tuple[int, str, Change]]:
    return [(c.call, c.phase, c.change) for c in trial.comparisons()]


def test_a_step_is_never_held_against_a_forward_pass() -> None:
    """Base has a budget for training alone, head for both: by their order alone they would meet."""
    base = Side({(1, "training"): 0.03})
    head = Side({(1, "inference"): 0.01, (1, "training"): 0.03})
    trial = meet(base, head)
    assert told(trial) == [
        (1, "training", Change.SAME),
        (1, "inference", Change.ONLY_IN_HEAD),
    ]
    assert (base.timed, head.timed) == ({0}, {1})


def test_calls_between_which_head_has_put_another_still_meet() -> None:
    """The phases of two calls, of which base misses one."""
    base = Side({(1, "inference"): 0.01, (2, "inference"): 0.02, (2, "training"): 0.06})
    head = Side({(1, "inference"): 0.01, (1, "training"): 0.03, (2, "training"): 0.06})
    assert told(meet(base, head)) == [
        (1, "inference", Change.SAME),
        (2, "training", Change.SAME),
        (2, "inference", Change.ONLY_IN_BASE),
        (1, "training", Change.ONLY_IN_HEAD),
    ]


def test_a_body_does_not_meet_a_call_of_the_fixture() -> None:
    """Each is only on its side, and neither is timed."""
    base, head = Side({(0, "inference"): 0.01}), Side({(1, "inference"): 0.02})
    assert [change for *_, change in told(meet(base, head))] == [
        Change.ONLY_IN_BASE,
        Change.ONLY_IN_HEAD,
    ]
    assert base.timed == head.timed == set()


def test_a_cpu_is_not_compared_with_a_gpu() -> None:
    """A test that was moved to another device is unmeasured, and says so."""
    calls = {(1, "inference"): 0.01}
    base, head = Side(calls), Side(calls, device="cuda:0")
    (found,) = meet(base, head).comparisons()
    assert found.change is Change.UNMEASURED
    assert found.reason == "call 1 (inference) runs on cpu in base, and on cuda:0 in head"
    assert base.timed == set()


class Noisy:
    """Others come in, in the first few measurements."""

    testing = Undisturbed.testing

    def __init__(self, times: int) -> None:
        self.times = times

    @contextmanager
    def measuring(self, _device: str) -> Iterator[None]:
        yield
        self.times -= 1
        if self.times >= 0:
            raise CannotMeasure("the machine was not quiet", remedy="wait")


@pytest.mark.parametrize(("times", "change"), [(2, Change.SAME), (3, Change.UNMEASURED)])
def test_one_disturbed_turn_does_not_end_a_test(times: int, change: Change) -> None:
    """What it gave is dropped, and another restart makes up for it; not for ever."""
    calls = {(1, "inference"): 0.01}
    (found,) = meet(Side(calls), Side(calls), Noisy(times), times=9).comparisons()
    assert found.change is change
    if found.timing:
        assert len(found.timing.logs) == 6


def test_a_call_that_cannot_be_repeated_ends_the_trial() -> None:
    """No restart mends that."""

    class Broken(Side):
        def take(self, samples: int, *, calls: int) -> Sequence[float]:
            raise CannotMeasure("head: the call cannot be repeated")

    calls = {(1, "inference"): 0.01}
    trial = meet(Side(calls), Broken(calls), times=1)
    assert trial.decided
    assert trial.comparisons()[0].reason == "head: the call cannot be repeated"
    assert not trial.wants(Key(1, "inference"))
