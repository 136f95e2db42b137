"""The hooks of pytest, and nothing else: each calls the room that does the work."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Generator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nnscale import keys, marks, options
from pytest_nnscale.errors import BadOption, mistakes_text
from pytest_nnscale.fixtures import nnscale as nnscale
from pytest_nnscale.keys import IDLE, NOT_RUN, OURS, VERDICT

if TYPE_CHECKING:
    from pytest_nnscale.tally import Tally
    from pytest_nnscale.timing.quiet import Quiet


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nnscale", "compute budgets of neural networks")
    options.declare(group.addoption, parser.addini)


def pytest_configure(config: pytest.Config) -> None:
    for spec in marks.MARKS:
        config.addinivalue_line("markers", spec.help)
    config.stash[keys.ENDING] = ExitStack()
    config.add_cleanup(config.stash[keys.ENDING].close)  # before those of others: it runs last
    # pytest only warns of keys that nobody knows; a budget under a misspelt one would be off.
    unknown: set[str] = getattr(config, "_get_unknown_ini_keys", set)()
    try:
        options.refuse_unknown(unknown)
        config.stash[keys.OPTIONS] = options.resolve(config.getoption, config.getini)
    except BadOption as error:
        raise pytest.UsageError(str(error)) from error
    if config.stash[keys.OPTIONS].free_operators:
        from pytest_nnscale.counting.declared import declare_free

        declare_free(config.stash[keys.OPTIONS].free_operators)
        config.add_cleanup(lambda: declare_free(frozenset()))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, None, None]:
    collected = [*items]  # a glob means also what -k and -m leave out
    yield  # others may add marks of ours
    rules = config.stash[keys.OPTIONS].budgets
    if not rules and not any(marks.has_any(item) for item in collected):
        return
    from pytest_nnscale.collecting import collect, is_whole_suite

    found = collect(collected, rules, known=_registered(config))
    mistakes = [*found.mistakes]
    # A worker's own command line does not tell: the controller's does.
    asked = getattr(config, "workerinput", {}).get("nnscale_whole_suite", is_whole_suite(config))
    if asked and not session.testsfailed:
        mistakes += [f"nnscale_budgets: {glob!r} matches no test" for glob in found.idle_rules]
    if any(budget.relative_to for some in found.budgets.values() for budget in some):
        from pytest_nnscale.references import link

        whole = asked and len(items) == len(collected)
        items[:], unknown = link(items, found.budgets, whole_suite=whole)
        mistakes += unknown
    told = {"covered": found.covered, "mistakes": mistakes, "idle_rules": found.idle_rules}
    worker_says = getattr(config, "workeroutput", None)
    if worker_says is not None:
        # Raising in an xdist worker is an INTERNALERROR: the controller speaks instead.
        worker_says["nnscale"] = json.dumps(told)
        if mistakes:
            items.clear()
            return
    elif mistakes:
        raise pytest.UsageError(mistakes_text(mistakes))
    else:
        _tally(config).learn(told)
    for item, budgets in found.budgets.items():
        item.stash[keys.BUDGETS] = budgets
        item.stash[keys.MARKED] = marks.own_marks(item)
    sampled = any(b.metric.sampled for item in items for b in item.stash.get(keys.BUDGETS, ()))
    # Whoever has set EFFORT before has settled as well what is held off.
    if sampled and keys.EFFORT not in config.stash:
        from pytest_nnscale.enforcing import quiet_of

        config.pluginmanager.register(_TakesTurns(quiet_of(config)))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    from pytest_nnscale.collecting import is_whole_suite

    node.workerinput["nnscale_whole_suite"] = is_whole_suite(node.config)
    _tally(node.config)  # its listener has to be there before the first report


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    told = getattr(node, "workeroutput", {}).get("nnscale")
    if told is not None:
        _tally(node.config).learn(json.loads(told))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    budgets = item.stash.get(keys.BUDGETS, ())
    if not budgets:
        return (yield)
    # A rerun of the test starts anew.
    item.user_properties[:] = [p for p in item.user_properties if p[0] not in OURS]
    try:
        return (yield)
    except BaseException:
        item.user_properties.append((NOT_RUN, len(budgets)))
        raise


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    budgets = item.stash.get(keys.BUDGETS, ())
    if "benchmark" in getattr(item, "funcargs", ()) and (
        budgets or marks.own_marks(item) or keys.CALLER in item.stash
    ):
        from pytest_nnscale.benchmarked import watch

        watch(item)
    try:
        outcome = yield
        if budgets or marks.own_marks(item):
            from pytest_nnscale.collecting import budgets_of

            budgets = budgets_of(item)  # it may have been marked while it ran
    except BaseException:
        if not budgets:
            raise
        item.user_properties.append((NOT_RUN, len(budgets)))
        raise
    compared = getattr(item.stash.get(keys.CALLER, None), "verdicts", ())
    if not budgets and not compared:
        return outcome
    if getattr(item, "_excinfo", None):
        # A unittest case failed or skipped itself, which it does not raise through here.
        item.user_properties.append((NOT_RUN, len(budgets)))
        return outcome
    if not hasattr(item.config, "workeroutput"):
        _tally(item.config)
    from pytest_nnscale.enforcing import enforce, judge_test

    chosen = item.config.stash[keys.OPTIONS]
    judged = judge_test(item, budgets)
    verdicts = judged.verdicts
    if any(verdict.budget.limit == math.inf for verdict in verdicts):
        from pytest_nnscale.references import keep_timed

        verdicts = keep_timed(item, verdicts)
    for verdict in verdicts:
        told = json.dumps(verdict.without_details().to_dict(), allow_nan=False)
        item.user_properties.append((VERDICT, told))
    item.user_properties += [(IDLE, origin) for origin in judged.idle]
    enforce(item, verdicts, chosen)
    return outcome


def _registered(config: pytest.Config) -> set[str]:
    """Return the names of all registered marks: those of another plugin are no mistakes."""
    return {line.partition(":")[0].partition("(")[0].strip() for line in config.getini("markers")}


class _TakesTurns:
    """Keeps measurements out while a test runs; there only in sessions with sampled budgets."""

    def __init__(self, quiet: Quiet) -> None:
        self._quiet = quiet
        self._has_run = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._has_run = True
        with self._quiet.testing(item.nodeid):
            return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        # What plugins do at the end of a session takes a second or two, garbage collection included,
        # and others may still measure. No longer than that: a worker lives on until all have ended.
        if self._has_run and exitstatus != pytest.ExitCode.INTERRUPTED:
            ending = self._quiet.testing("the end of a session")
            session.config.stash[keys.ENDING].enter_context(ending)


class _Listener:
    """Hears the reports of a session that has budgets; on xdist's controller, of all workers."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        decided = report.when == "call" or (report.when == "setup" and not report.passed)
        if not decided or report.outcome == "rerun":  # type: ignore[comparison-overlap]
            return
        if any(name in OURS for name, _ in report.user_properties):
            xfailed = report.skipped and hasattr(report, "wasxfail")
            self._tally.add(report.nodeid, report.user_properties, xfailed=xfailed)


def _tally(config: pytest.Config) -> Tally:
    """Return the session's tally, made when the first budget asks for it."""
    if keys.TALLY not in config.stash:
        from pytest_nnscale.tally import Tally

        config.stash[keys.TALLY] = Tally()
        config.pluginmanager.register(_Listener(config.stash[keys.TALLY]))
    return config.stash[keys.TALLY]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    tally = session.config.stash.get(keys.TALLY, None)
    if tally is None:
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if tally.mistakes:
        session.exitstatus = pytest.ExitCode.USAGE_ERROR
        if reporter is None:
            sys.stderr.write(f"{mistakes_text(tally.mistakes)}\n")
    elif tally.vain_origins and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if reporter is None:
            from pytest_nnscale.report.terminal import in_vain

            sys.stderr.writelines(f"{line}\n" for line in in_vain(tally))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    tally = config.stash.get(keys.TALLY, None)
    if tally is None:
        return
    if tally.mistakes:
        terminalreporter.write_line(f"ERROR: {mistakes_text(tally.mistakes)}", red=True)
        return
    for glob in tally.idle_rules:
        terminalreporter.write_line(
            f"note: nnscale_budgets {glob!r} matches none of the tests collected this time"
        )
    if tally.empty:
        return
    from pytest_nnscale.report.terminal import summary

    for line, colour in summary(
        tally,
        width=terminalreporter._tw.fullwidth,
        verbosity=config.get_verbosity(),
    ):
        terminalreporter.write_line(line, **({colour: True} if colour else {}))
