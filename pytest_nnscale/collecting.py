"""The budgets of the collected tests: marks read, closest first, every mistake gathered."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from pytest_nnscale import keys
from pytest_nnscale.budget import Budget
from pytest_nnscale.errors import BadBudget, mistakes_text
from pytest_nnscale.grammar import parse_mark
from pytest_nnscale.marks import MARK_FOR, MARK_OF, near_miss, own_marks
from pytest_nnscale.measurement import Metric
from pytest_nnscale.rules import Rule


@dataclass(frozen=True)
class Collection:
    """What collecting found: budgets by item, mistakes, and how many tests each origin covers."""

    budgets: dict[pytest.Item, tuple[Budget, ...]]
    mistakes: tuple[str, ...]
    covered: dict[str, int]
    idle_rules: tuple[str, ...]


def collect(
    items: Iterable[pytest.Item], rules: Sequence[Rule], *, known: Container[str] = ()
) -> Collection:
    """Read the budgets of all items; a mistake does not hide the next one.

    `known` are the names of all registered marks: one that is not among them may be misspelt.
    """
    budgets: dict[pytest.Item, tuple[Budget, ...]] = {}
    mistakes: dict[tuple[str, str], dict[str, None]] = {}
    covered: Counter[str] = Counter()
    matched: Counter[str] = Counter()
    for item in items:
        found: dict[object, Budget] = {}
        _note_misspelt(item, known, mistakes)
        for budget in _from_marks(item, mistakes):
            found.setdefault(budget.key, budget)
        for rule in reversed(rules):
            if rule.matches(item.nodeid):
                matched[rule.glob] += 1
                for budget in rule.budgets:
                    found.setdefault(budget.key, budget)
        if found:
            # In the order of the table, exact ones first: decorators arrive bottom up.
            budgets[item] = tuple(sorted(found.values(), key=_place_in_table))
            covered.update({budget.origin for budget in found.values() if not budget.own})
    idle = tuple(rule.glob for rule in rules if not matched[rule.glob])
    told = tuple(_told(message, where) for (_, message), where in mistakes.items())
    return Collection(budgets, told, dict(covered), idle)


def settle(session: pytest.Session, items: list[pytest.Item], collected: list[pytest.Item]) -> None:
    """Give each collected test its budgets, and tell the tally; `items` are those that will run.

    Mistakes are a UsageError; an xdist worker runs nothing instead, and its controller speaks.
    """
    config = session.config
    found = collect(collected, config.stash[keys.OPTIONS].budgets, known=_registered(config))
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
        from pytest_nnscale.listening import tally_of

        tally_of(config).learn(told)
    for item, budgets in found.budgets.items():
        item.stash[keys.BUDGETS] = budgets
        item.stash[keys.MARKED] = own_marks(item)


def budgets_of(item: pytest.Item) -> tuple[Budget, ...]:
    """Return a test's budgets, read again where it was given marks since it was collected.

    A mistake in them fails the test: it is too late for a collection error.
    """
    if own_marks(item) != item.stash.get(keys.MARKED, 0):
        found = collect([item], item.config.stash[keys.OPTIONS].budgets)
        if found.mistakes:
            pytest.fail(mistakes_text(found.mistakes), pytrace=False)
        item.stash[keys.BUDGETS] = found.budgets.get(item, ())
        item.stash[keys.MARKED] = own_marks(item)
    return item.stash.get(keys.BUDGETS, ())


def _registered(config: pytest.Config) -> set[str]:
    """Return the names of all registered marks: those of another plugin are no mistakes."""
    return {line.partition(":")[0].partition("(")[0].strip() for line in config.getini("markers")}


def _note_misspelt(
    item: pytest.Item, known: Container[str], mistakes: dict[tuple[str, str], dict[str, None]]
) -> None:
    for node in item.listchain():
        for mark in node.own_markers:
            meant = None if mark.name in known else near_miss(mark.name)
            if meant is not None:
                place = node.nodeid.partition("[")[0]
                sentence = f"{mark.name}: there is no such mark; did you mean {meant}?"
                mistakes.setdefault((place, sentence), {})[item.nodeid] = None


def _place_in_table(budget: Budget) -> int:
    metric = Metric.LATENCY if budget.metric is Metric.RATIO else budget.metric
    return list(MARK_FOR).index(metric.value)


def _told(message: str, where: Iterable[str]) -> str:
    """Say a mistake once, with the first test that has it and the number of others."""
    first, *others = where
    more = f" (and {len(others)} more)" if others else ""
    return f"{first}{more}: {message}"


def _from_marks(
    item: pytest.Item, mistakes: dict[tuple[str, str], dict[str, None]]
) -> list[Budget]:
    """Return an item's budgets, closest first; of one node's equal ones the later overrides.

    A parametrisation's own marks are closest of all. On a class the later mark is the derived
    class's; on a function or module two marks for one number contradict each other.
    """
    callspec = getattr(item, "callspec", None)
    parametrisation = getattr(callspec, "id", None)
    closest = [id(mark) for mark in getattr(callspec, "marks", ())]
    budgets: list[Budget] = []
    for node, marks in _marks_by_node(item):
        here: dict[object, Budget] = {}
        by_parameter: set[object] = set()
        for mark in marks:
            own = node is item
            origin = "the test's mark" if own else f"the mark of {node.nodeid or 'the session'}"
            try:
                budget = parse_mark(
                    MARK_OF[mark.name],
                    mark.args,
                    mark.kwargs,
                    parametrisation=parametrisation,
                    origin=origin,
                    own=own,
                )
                # One number, two limits: which was meant?
                if (
                    budget.key in here
                    and not isinstance(node, pytest.Class)
                    and (id(mark) not in closest or budget.key in by_parameter)
                    and budget.limit != here[budget.key].limit
                ):
                    raise BadBudget("two limits for one number; keep one")
            except BadBudget as error:
                where = item.nodeid if own else f"{item.nodeid} (from {node.nodeid})"
                # One mistake of a parametrised test or of a class is told once.
                place = node.nodeid.partition("[")[0]
                mistakes.setdefault((place, f"{mark.name}: {error}"), {})[where] = None
                continue
            here[budget.key] = budget
            if id(mark) in closest:
                by_parameter.add(budget.key)
        budgets += here.values()
    return budgets


def _marks_by_node(
    item: pytest.Item,
) -> Iterable[tuple[Any, list[pytest.Mark]]]:
    for node in reversed(item.listchain()):
        marks = [mark for mark in node.own_markers if mark.name in MARK_OF]
        if marks:
            yield node, marks


def is_whole_suite(config: pytest.Config) -> bool:
    """Tell whether everything is asked for: no paths or all of them, no --ignore, no --lf.

    All of them is the rootdir, or what `testpaths` lists. Deselection by -k and -m comes after
    collecting and does not matter here.
    """
    here = config.invocation_params.dir
    asked = {(here / argument).resolve() for argument in config.args}
    tests = {(config.rootpath / path).resolve() for path in config.getini("testpaths")}
    whole = config.rootpath in asked or (bool(tests) and tests <= asked)
    narrowing = ("lf", "ignore", "ignore_glob", "stepwise", "deselect")
    return whole and not any(config.getoption(name, None) for name in narrowing)
