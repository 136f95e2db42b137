"""What a latency is held against where a budget is a ratio: a callable, or another test."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_nnscale import keys
from pytest_nnscale.budget import Budget, Verdict
from pytest_nnscale.errors import BadBudget, shown
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.naming import reference_name

if TYPE_CHECKING:
    import pytest


# Of a test that is only held against; nobody judges it by this.
_TIMED = "timed for others"


def callables_of(item: pytest.Item) -> dict[str, Callable[..., Any]]:
    """Return the callables that a test's marks name in `relative_to`, by their names."""
    given = (mark.kwargs.get("relative_to") for mark in item.iter_markers("max_latency_ms"))
    return {reference_name(each): each for each in given if callable(each)}


def link(
    items: Sequence[pytest.Item],
    budgets: dict[pytest.Item, tuple[Budget, ...]],
    *,
    whole_suite: bool,
) -> tuple[list[pytest.Item], list[str]]:
    """Have the tests timed that others are held against, before those.

    Budgets then name the test by its whole id. Returns the items in an order that allows it, and
    what is wrong: a name of several tests, of the test itself, or, where the whole suite is there,
    of none.
    """
    mistakes: list[str] = []
    first: dict[pytest.Item, None] = {}
    for item, found in [*budgets.items()]:
        linked = []
        known = callables_of(item) if any(budget.relative_to for budget in found) else {}
        for budget in found:
            if budget.relative_to and budget.relative_to not in known:
                try:
                    reference = _test_named(budget.relative_to, item, items)
                    if reference is None and not whole_suite:
                        linked.append(budget)  # it is told when the test runs
                        continue
                    if reference is None:
                        raise BadBudget(f"relative_to={shown(budget.relative_to)}: no such test")
                except BadBudget as error:
                    mistakes.append(f"{item.nodeid}: max_latency_ms: {error}")
                    continue
                first[reference] = None
                budget = replace(budget, relative_to=reference.nodeid)
            linked.append(budget)
        budgets[item] = tuple(linked)
    for reference in first:
        timed = Budget(Metric.LATENCY, math.inf, origin=_TIMED)
        budgets[reference] = (*budgets.get(reference, ()), timed)
    return [*first, *(item for item in items if item not in first)], mistakes


def _test_named(name: str, item: pytest.Item, items: Iterable[pytest.Item]) -> pytest.Item | None:
    """Find the test that a name means: a whole id, or one in the same module or class."""
    beside = {
        f"{node.nodeid}::{name}" for node in item.listchain()[:-1] if getattr(node, "nodeid", "")
    }
    found = [other for other in items if other.nodeid == name or other.nodeid in beside]
    if not found:
        return None
    if len(found) > 1:
        raise BadBudget(f"relative_to={shown(name)} is {len(found)} tests; give the id of one")
    if found[0] is item:
        raise BadBudget(f"relative_to={shown(name)} is the test itself")
    return found[0]


def keep_timed(item: pytest.Item, verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """Take out what a test was timed for others, and keep it for them."""
    judged = []
    for verdict in verdicts:
        if verdict.budget.origin == _TIMED:
            timed = item.config.stash.setdefault(keys.TIMED, {})
            timed[item.nodeid] = verdict.measurement
        else:
            judged.append(verdict)
    return tuple(judged)


def references_of(
    item: pytest.Item, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
) -> dict[str, Callable[[], object] | Measurement]:
    """Return what a call in a test may be held against: callables get its inputs."""
    named = kwargs or {}
    found: dict[str, Callable[[], object] | Measurement] = {
        name: (lambda call=call: call(*args, **named))  # type: ignore[misc]
        for name, call in callables_of(item).items()
    }
    timed = item.config.stash.get(keys.TIMED, dict[str, Measurement]())
    return {**timed, **found}
