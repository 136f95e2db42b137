"""The hooks of pytest, and nothing else: each calls the room that does the work."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nnscale import keys, marks, options
from pytest_nnscale.errors import BadOption
from pytest_nnscale.fixtures import nnscale as nnscale
from pytest_nnscale.keys import NOT_RUN, OURS

if TYPE_CHECKING:
    from pytest_nnscale.budget import Budget


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
    if getattr(config.option, "loadgroup", False) and any(map(marks.has_any, items)):
        from pytest_nnscale.references import groups

        for item, group in groups(items):  # before pytest-xdist reads them
            item.add_marker(pytest.mark.xdist_group(group))
    yield  # others may add marks of ours
    has_budgets = bool(config.stash[keys.OPTIONS].budgets) or any(map(marks.has_any, collected))
    if has_budgets:
        from pytest_nnscale.collecting import settle

        settle(session, items, collected)
    # What samples without a budget: `nnscale.compare`, and `profile`, which somebody has imported.
    uses_fixture = any("nnscale" in getattr(item, "fixturenames", ()) for item in items)
    if has_budgets or uses_fixture or "pytest_nnscale.profiling" in sys.modules:
        from pytest_nnscale.taking_turns import take_turns

        take_turns(config, items)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    from pytest_nnscale.collecting import is_whole_suite
    from pytest_nnscale.listening import tally_of

    node.workerinput["nnscale_whole_suite"] = is_whole_suite(node.config)
    tally_of(node.config)  # its listener has to be there before the first report


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    told = getattr(node, "workeroutput", {}).get("nnscale")
    if told is not None:
        from pytest_nnscale.listening import tally_of

        tally_of(node.config).learn(json.loads(told))


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
        item.user_properties.append((NOT_RUN, _stated(budgets)))
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
        item.user_properties.append((NOT_RUN, _stated(budgets)))
        raise
    compared = getattr(item.stash.get(keys.CALLER, None), "verdicts", ())
    if not budgets and not compared:
        return outcome
    if getattr(item, "_excinfo", None):
        # A unittest case failed or skipped itself, which it does not raise through here.
        item.user_properties.append((NOT_RUN, _stated(budgets)))
        return outcome
    if not hasattr(item.config, "workeroutput"):
        from pytest_nnscale.listening import tally_of

        tally_of(item.config)
    from pytest_nnscale.enforcing import end_test

    end_test(item, budgets)
    return outcome


def _stated(budgets: Iterable[Budget]) -> int:
    """Count the budgets that somebody has stated: not those by which a test is timed for others."""
    return sum(budget.limit != math.inf for budget in budgets)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    tally = session.config.stash.get(keys.TALLY, None)
    if tally is not None:
        from pytest_nnscale.listening import settle_exit

        settle_exit(session, tally)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    tally = config.stash.get(keys.TALLY, None)
    if tally is not None:
        from pytest_nnscale.listening import write_summary

        write_summary(terminalreporter, config, tally)
