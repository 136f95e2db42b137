"""Restarts, with workers that are none: what one that dies costs, and what is said meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from pytest_nnscale.ab import restarts as module
from pytest_nnscale.ab.comparison import Report
from pytest_nnscale.ab.meeting import Undisturbed
from pytest_nnscale.ab.pair import Plan
from pytest_nnscale.ab.partner import Died, Place
from pytest_nnscale.ab.ratio import Change
from pytest_nnscale.ab.restarts import Restarts

CALL = {"call": 1, "phase": "inference", "subject": "Net", "device": "cpu"}


class Worker:
    """Makes one call in each test; it dies of some tests, and keeps the other side waiting once."""

    tests: ClassVar[list[str]] = []
    deadly: ClassVar[set[str]] = set()

    def __init__(
        self,
        place: Place,
        _arguments: Sequence[str],
        _files: Sequence[str] = (),
        *,
        waits: Callable[[str, float], None],
    ) -> None:
        self.tree, self.threads, self.waits = place.tree, 7, waits

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_args: object) -> None:
        pass

    def collected(self) -> dict[str, Any]:
        tests = {test: f"/tree/part/{test}.py" for test in self.tests}
        return {"tests": tests, "confidence": 0.99, "versions": {}}

    def run(self, tests: Sequence[str]) -> None:
        self.messages: list[dict[str, Any]] = []
        self.left = list(tests)

    def advance(self) -> dict[str, Any]:
        if not self.messages:
            if self.left.pop(0) in self.deadly:
                raise Died("base: it ended", how="exited with 3", output="dying")
            self.waits("base", 30.0)
            calls = [{**CALL, "exact": []}]
            ended = {"outcome": "passed", "why": "", "calls": calls, "lacking": []}
            self.messages = [{"is": "ready", **CALL}, {"is": "tested", **ended}]
        return self.messages.pop(0)

    def take(self, samples: int, *, calls: int) -> list[float]:
        del calls
        return [0.2] * samples

    def go_on(self) -> None:
        pass

    def finish(self) -> None:
        pass


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    """Return `compare(tests, deadly)`: what comes of two restarts."""
    monkeypatch.setattr(module, "Partner", Worker)

    def run(tests: str, deadly: str = "", progress: Any = lambda *_: None) -> Report:
        monkeypatch.setattr(Worker, "tests", list(tests))
        monkeypatch.setattr(Worker, "deadly", set(deadly))
        tree = SimpleNamespace(name="main", commit="1", folder=Path("/tree"), moved=str)
        place = Place(tree)  # type: ignore[arg-type]
        return Restarts(
            place,
            place,
            arguments=(),
            plan=Plan(least=2, max_time_s=0, calls_s=0.1),
            confidence=None,
            quiet=Undisturbed(),
            progress=progress,
        ).compare()

    return run


def test_a_worker_that_dies_costs_its_test_alone(compare: Callable[..., Report]) -> None:
    """Those before it and those behind it have their restarts."""
    report = compare("abc", "b")
    found = {each.test: each for each in report.comparisons}
    assert [found[test].change for test in "abc"] == [
        Change.SAME,
        Change.UNMEASURED,
        Change.SAME,
    ]
    assert found["b"].reason == "base: it ended"
    assert found["b"].output == "dying"
    assert [len(found[test].timing.logs) for test in "ac" if found[test].timing] == [2, 2]


def test_a_test_whose_restarts_never_came_to_their_end_is_unmeasured(
    compare: Callable[..., Report],
) -> None:
    """Whose code it was is seen at the end of a session, and others ended all of its sessions."""
    report = compare("abc", "bc")
    assert [each.change for each in report.comparisons] == [Change.UNMEASURED] * 3
    assert "whose code it ran is not known" in report.comparisons[0].reason


def test_what_is_known_of_a_side_comes_from_its_workers(compare: Callable[..., Report]) -> None:
    """Their threads, and where a test stands from where the command was started."""
    report = compare("a")
    assert (report.base.threads, report.head.threads) == (7, 7)
    assert report.comparisons[0].file == "part/a.py"


def test_what_is_waited_for_is_told_with_its_test(compare: Callable[..., Report]) -> None:
    """To whoever shows the progress."""
    told: list[str] = []
    compare("a", progress=lambda what, _done, _planned: told.append(what))
    assert "still waiting for base after 30 s; restart 1: a" in told
