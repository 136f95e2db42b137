"""Listening: the reports of a session that has budgets, and what the session comes to by them."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from pytest_nnscale import keys
from pytest_nnscale.errors import mistakes_text
from pytest_nnscale.keys import OURS
from pytest_nnscale.report.terminal import in_vain, summary
from pytest_nnscale.tally import Tally


class Listener:
    """Hears the reports of a session; on xdist's controller, of all workers."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        decided = report.when == "call" or (report.when == "setup" and not report.passed)
        if not decided or report.outcome == "rerun":  # type: ignore[comparison-overlap]
            return
        if any(name in OURS for name, _ in report.user_properties):
            xfailed = report.skipped and hasattr(report, "wasxfail")
            self._tally.add(report.nodeid, report.user_properties, xfailed=xfailed)


def tally_of(config: pytest.Config) -> Tally:
    """Return the session's tally, made when the first budget asks for it."""
    if keys.TALLY not in config.stash:
        config.stash[keys.TALLY] = Tally()
        config.pluginmanager.register(Listener(config.stash[keys.TALLY]))
    return config.stash[keys.TALLY]


def settle_exit(session: pytest.Session, tally: Tally) -> None:
    """Make the session red for mistakes in budgets and for budgets that judged nothing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if tally.mistakes:
        session.exitstatus = pytest.ExitCode.USAGE_ERROR
        if reporter is None:
            sys.stderr.write(f"{mistakes_text(tally.mistakes)}\n")
    elif tally.vain_origins and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if reporter is None:
            sys.stderr.writelines(f"{line}\n" for line in in_vain(tally))


def write_summary(terminalreporter: Any, config: pytest.Config, tally: Tally) -> None:
    """Write the table of budgets and the closing line, or the mistakes alone."""
    if tally.mistakes:
        terminalreporter.write_line(f"ERROR: {mistakes_text(tally.mistakes)}", red=True)
        return
    for glob in tally.idle_rules:
        terminalreporter.write_line(
            f"note: nnscale_budgets {glob!r} matches none of the tests collected this time"
        )
    if tally.empty:
        return
    for line, colour in summary(
        tally,
        width=terminalreporter._tw.fullwidth,
        verbosity=config.get_verbosity(),
    ):
        terminalreporter.write_line(line, **({colour: True} if colour else {}))
