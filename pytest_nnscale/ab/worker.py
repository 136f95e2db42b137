"""The plugin of a worker: a pytest session of one tree that times its tests when it is told to.

It is loaded by `-p`, and acts only where the command has left its settings in the environment. Of the
collected tests it runs those with a budget for latency, in the order that it is told. Where a test
would have been measured the command takes over, inside the test: its fixtures are warm, and what
guards the user's model stands around. No limit holds here, the tests' own asserts do.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Generator, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest

from pytest_nnscale import keys
from pytest_nnscale.ab.channel import PROTOCOL, VARIABLE, Channel, Message
from pytest_nnscale.ab.origins import Origins, loaded_files, loaded_libraries
from pytest_nnscale.ab.seclusion import seclude
from pytest_nnscale.ab.timer import EXACT, Command, Timer
from pytest_nnscale.budget import Budget, Verdict
from pytest_nnscale.measurement import Metric

# What limits the time of a call, in one way or another.
_OF_TIME = (Metric.LATENCY, Metric.RATIO, Metric.EFFICIENCY)
_NO_LIMIT = float("inf")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    settings = os.environ.pop(VARIABLE, "")
    if settings:
        config.pluginmanager.register(Worker(config, json.loads(settings)), "nnscale-ab")


class Worker:
    """The hooks of one session, and its end of the channel."""

    def __init__(self, config: pytest.Config, settings: Message) -> None:
        self._settings = settings
        self._command = Command(Channel(*settings["pipes"]))
        self._timer = Timer(self._command)
        self._verdicts: tuple[Verdict, ...] = ()
        self._reports: list[pytest.TestReport] = []
        for descriptor in settings["pipes"]:
            os.set_inheritable(descriptor, False)
        seclude(config, settings["scratch"])
        if settings["files"]:
            config.args = settings["files"]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        from pytest_nnscale.meters.effort import Effort

        if keys.OPTIONS not in session.config.stash:
            raise pytest.UsageError(
                "the plugin of pytest-nnscale is not loaded: -p pytest_nnscale.plugin"
            )
        self._timer.flush_l2 = session.config.stash[keys.OPTIONS].flush_l2
        # Nobody is held off from here: whoever runs the workers sees to that.
        session.config.stash[keys.EFFORT] = Effort(timer=self._timer, about=self._timer.about)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> Generator[None, object, object]:
        collected = yield
        # Otherwise pytest is about to say what could not be collected.
        if not session.testsfailed:
            self._choose(session)
        return collected

    def _choose(self, session: pytest.Session) -> None:
        """Tell which tests there are, and keep those that are to run."""
        sampled = {item.nodeid: item for item in session.items if _timed(item)}
        self._command.tell(
            {
                "is": "collected",
                "protocol": PROTOCOL,
                "tests": {nodeid: str(item.path) for nodeid, item in sampled.items()},
                "confidence": session.config.stash[keys.OPTIONS].confidence,
                "versions": _versions(),
                "stranger": self._stranger(),
            }
        )
        told = self._command.hear()
        chosen = [sampled[nodeid] for nodeid in told.get("tests", ())]
        left_out = set(session.items).difference(chosen)
        session.config.hook.pytest_deselected(items=[*left_out])
        session.items[:] = chosen
        for item in chosen:
            budgets = item.stash[keys.BUDGETS]
            item.stash[keys.BUDGETS] = _without_limits(budgets)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._verdicts, self._reports = (), []
        self._timer.begin(item)
        ran = yield
        self._command.tell(
            {
                "is": "tested",
                "test": item.nodeid,
                **_ending(self._reports),
                "calls": self._timer.calls_with(self._verdicts),
                "lacking": _lacking(self._verdicts),
            }
        )
        return ran

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        outcome = yield
        budgets = item.stash.get(keys.BUDGETS, ())
        # This is inside the plugin's own hook, which then finds nothing left to judge.
        item.stash[keys.BUDGETS] = ()
        if not getattr(item, "_excinfo", None):  # a unittest case keeps its failures to itself
            from pytest_nnscale.verdicts import judge_test

            self._verdicts = judge_test(item, budgets).verdicts
            caller = item.stash.get(keys.CALLER, None)
            if caller is not None:
                caller.verdicts.clear()
        return outcome

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._reports.append(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        torch = sys.modules.get("torch")
        threads = None if torch is None else torch.get_num_threads()
        with suppress(pytest.exit.Exception):
            self._command.tell({"is": "ended", "threads": threads, "stranger": self._stranger()})

    def _stranger(self) -> Sequence[str] | None:
        told = self._settings["origins"]
        if not told:
            return None
        return Origins.read(Path(told)).find_stranger(loaded_files(), loaded_libraries())


def _timed(item: pytest.Item) -> bool:
    return any(budget.metric in _OF_TIME for budget in item.stash.get(keys.BUDGETS, ()))


def _without_limits(budgets: Sequence[Budget]) -> tuple[Budget, ...]:
    """Return budgets for the latency of a test and for all that can be counted beside it."""
    asked = [
        Budget(metric, _NO_LIMIT, b.phase, b.device, origin=b.origin, own=b.own)
        for metric in (*EXACT, Metric.LATENCY)
        for b in budgets
        if b.metric in _OF_TIME
    ]
    # The closest of a kind comes first, as it does for a test's own run.
    return tuple({budget.key: budget for budget in reversed(asked)}.values())[::-1]


def _lacking(verdicts: Sequence[Verdict]) -> list[Message]:
    """Return why a test's latency was not measured, for each budget of which that is true."""
    return [
        {"call": v.call, "reason": m.reason, "remedy": m.remedy, "missing": m.missing}
        for v in verdicts
        for m in (v.measurement,)
        if v.budget.metric is Metric.LATENCY and m.value is None
    ]


def _ending(reports: Sequence[pytest.TestReport]) -> Message:
    for report in reports:
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            why = getattr(crash, "message", "") or report.longreprtext or "it failed"
            first = why.strip().splitlines()[0]
            return {"outcome": "failed", "why": first, "text": report.longreprtext[-4000:]}
    for report in reports:
        if report.skipped:
            where = report.longrepr
            why = where[2] if isinstance(where, tuple) else getattr(report, "wasxfail", "")
            return {"outcome": "skipped", "why": str(why or "xfail"), "text": ""}
    return {"outcome": "passed", "why": "", "text": ""}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("torch", "pytest-nnscale"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
