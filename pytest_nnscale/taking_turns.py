"""Taking turns: where something may be sampled, each test of the session holds while it runs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from types import CodeType
from typing import TYPE_CHECKING

import pytest

from pytest_nnscale import keys
from pytest_nnscale.marks import MARK_FOR
from pytest_nnscale.measurement import Metric
from pytest_nnscale.report.progress import teller
from pytest_nnscale.verdicts import NnscaleWarning

if TYPE_CHECKING:
    from pytest_nnscale.budget import Verdict
    from pytest_nnscale.meters.effort import Effort
    from pytest_nnscale.timing.quiet import Quiet

_PROFILING = "pytest_nnscale.profiling"  # loaded by whoever imports `profile`
_SAMPLED = frozenset(metric.value for metric in Metric if metric.sampled)
_SAMPLED_MARKS = frozenset(mark for metric, mark in MARK_FOR.items() if metric in _SAMPLED)


def effort_of(config: pytest.Config) -> Effort:
    """Return how sampled metrics are measured in a session: as its options say."""
    if keys.EFFORT not in config.stash:
        from pytest_nnscale.meters.effort import asked

        def quiet(device: str) -> AbstractContextManager[None]:
            return quiet_of(config).measuring(device)  # made where something is sampled at last

        config.stash[keys.EFFORT] = asked(config.stash[keys.OPTIONS], quiet)
    return config.stash[keys.EFFORT]


def quiet_of(config: pytest.Config) -> Quiet:
    """Return what the tests and the measurements of a session take turns by."""
    if keys.QUIET not in config.stash:
        from pytest_nnscale.timing.quiet import Quiet

        wait_s = config.stash[keys.OPTIONS].max_wait
        config.stash[keys.QUIET] = Quiet(wait_s, tell=teller(config))
    return config.stash[keys.QUIET]


def take_turns(config: pytest.Config, items: Iterable[pytest.Item]) -> None:
    """Let all tests of a session hold, if one of them has or may get something sampled."""
    # Whoever has set EFFORT before has settled as well what is held off.
    if keys.EFFORT in config.stash or not any(map(may_sample, items)):
        return
    config.pluginmanager.register(TakesTurns(quiet_of(config)))
    options = config.stash[keys.OPTIONS]
    if options.max_wait <= options.max_time:
        _warn(
            config,
            f"nnscale_max_wait ({options.max_wait:g} s) is not longer than nnscale_max_time "
            f"({options.max_time:g} s): a test that waits behind one whole measurement goes on before "
            "it has ended, and it will not count; let others wait longer",
        )


def may_sample(item: pytest.Item) -> bool:
    """Tell whether a test has a sampled budget, or says in its own code that it samples."""
    if any(budget.metric.sampled for budget in item.stash.get(keys.BUDGETS, ())):
        return True
    fixtures = getattr(item, "fixturenames", ())
    profiles = _PROFILING in sys.modules
    code = getattr(getattr(item, "function", None), "__code__", None)
    if code is None or not (profiles or "nnscale" in fixtures or "request" in fixtures):
        return False
    said = frozenset(_words(code))
    return bool(
        ("nnscale" in fixtures and "compare" in said)
        or said & _SAMPLED_MARKS
        or (profiles and "profile" in said and said & _SAMPLED)
    )


def _words(code: CodeType) -> Iterator[str]:
    """Yield the names and the words of texts in a function, and in those inside it."""
    yield from code.co_names
    constants = list(code.co_consts)
    while constants:
        constant = constants.pop()
        if isinstance(constant, CodeType):
            yield from _words(constant)
        elif isinstance(constant, str):
            yield from constant.replace(",", " ").split()
        elif isinstance(constant, tuple | frozenset):
            constants += constant


def noted(config: pytest.Config, verdicts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    """Add to what a test sampled what there is to say of the wait for a quiet machine."""
    quiet = config.stash.get(keys.QUIET, None)
    notes = quiet.take_notes() if quiet is not None else ()
    if not notes:
        return verdicts
    return tuple(
        replace(v, measurement=replace(v.measurement, notes=(*v.measurement.notes, *notes)))
        if v.budget.metric.sampled
        else v
        for v in verdicts
    )


class TakesTurns:
    """Keeps measurements out while a test runs; there only in sessions that may sample."""

    def __init__(self, quiet: Quiet) -> None:
        self._quiet = quiet
        self._has_run = False
        self._has_warned = False
        self._lent = ExitStack()  # while somebody looks at the test in a debugger
        self._is_lent = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._has_run = True
        with self._quiet.testing(item.nodeid), self._lent:
            refusal = self._quiet.refusal
            if refusal is not None and not self._has_warned:
                self._has_warned = True
                _warn(
                    item.config,
                    "tests run unseen by measurements of other processes, and this one measures "
                    f"nothing any more: {refusal.reason}; {refusal.remedy}",
                )
            return (yield)

    def pytest_enter_pdb(self) -> None:
        if not self._is_lent:
            self._is_lent = True
            self._lent.enter_context(self._quiet.lending())

    def pytest_leave_pdb(self) -> None:
        self._is_lent = False
        self._lent.close()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        # What plugins do at the end of a worker takes a second or two, garbage collection included,
        # and others may still measure. No longer than that: a worker lives on until all have ended.
        # Where there are no workers, the results are not to wait for anybody.
        stopped = exitstatus == pytest.ExitCode.INTERRUPTED
        if self._has_run and not stopped and hasattr(session.config, "workerinput"):
            ending = self._quiet.testing("the end of a session")
            with contextlib.suppress(KeyboardInterrupt):
                session.config.stash[keys.ENDING].enter_context(ending)


def _warn(config: pytest.Config, text: str) -> None:
    """Warn once a session; where warnings are errors, this is none."""
    with contextlib.suppress(NnscaleWarning):
        config.issue_config_time_warning(NnscaleWarning(text), stacklevel=2)
