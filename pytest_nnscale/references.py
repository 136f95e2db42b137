"""What a latency is held against where a budget is a ratio: a callable, or another test."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_nnscale import keys
from pytest_nnscale.budget import Budget, Verdict
from pytest_nnscale.comparing import FOR_OTHERS
from pytest_nnscale.errors import BadBudget, shown
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.naming import identity_of
from pytest_nnscale.workload import Workload

if TYPE_CHECKING:
    import pytest

    from pytest_nnscale.observation import ReferenceKey

Budgets = dict["pytest.Item", tuple[Budget, ...]]


def link(
    items: Sequence[pytest.Item], budgets: Budgets, *, whole_suite: bool
) -> tuple[list[pytest.Item], list[str]]:
    """Have the tests timed that others are held against, before those.

    Budgets then name the test by its whole id. Returns the items in an order that allows it, which
    is their own where that does, and what is wrong: a name of several tests, of the test itself,
    of one that is held against it, or, where the whole suite is there, of none.
    """
    mistakes: list[str] = []
    needed: dict[pytest.Item, list[pytest.Item]] = {}
    selected = {*items}
    for item, found in [*budgets.items()]:
        if item not in selected:
            continue
        linked = []
        for budget in found:
            try:
                reference = _reference_of(budget, item, items, whole_suite=whole_suite)
            except BadBudget as error:
                mistakes.append(f"{item.nodeid}: max_latency_ms: {error}")
                continue
            if reference is not None:
                needed.setdefault(item, []).append(reference)
                budget = replace(budget, relative_to=_id_of(reference))
                _have_timed(reference, budget, budgets)
            linked.append(budget)
        timed = (each for each in budgets[item] if each.origin == FOR_OTHERS)
        budgets[item] = (*linked, *(each for each in timed if each not in linked))
    return _in_order(items, needed, mistakes), mistakes


def _reference_of(
    budget: Budget, item: pytest.Item, items: Iterable[pytest.Item], *, whole_suite: bool
) -> pytest.Item | None:
    """Find the test that a budget names, if it does; where not all are there it may be left out."""
    if not budget.relative_to or budget.reference:
        return None
    found = _test_named(budget.relative_to, item, items)
    if found is None and whole_suite:
        raise BadBudget(f"relative_to={shown(budget.relative_to)}: no such test")
    return found  # without one it is told when the test runs


def _have_timed(reference: pytest.Item, budget: Budget, budgets: Budgets) -> None:
    timed = Budget(Metric.LATENCY, math.inf, budget.phase, budget.device, origin=FOR_OTHERS)
    if timed not in budgets.get(reference, ()):
        budgets[reference] = (*budgets.get(reference, ()), timed)


def _in_order(
    items: Sequence[pytest.Item],
    needed: Mapping[pytest.Item, Sequence[pytest.Item]],
    mistakes: list[str],
) -> list[pytest.Item]:
    """Move a test that is needed ahead of the first that needs it, and no other."""
    placed: dict[pytest.Item, None] = {}
    begun: dict[pytest.Item, None] = {}

    def place(item: pytest.Item) -> None:
        if item in placed:
            return
        begun[item] = None
        for reference in needed.get(item, ()):
            if reference in begun and reference not in placed:
                mistakes.append(
                    f"{item.nodeid}: max_latency_ms: relative_to={shown(_id_of(reference))}, which "
                    "is itself held against this test"
                )
            else:
                place(reference)
        placed[item] = None

    for item in items:
        place(item)
    return [*placed]


def groups(items: Sequence[pytest.Item]) -> Iterator[tuple[pytest.Item, str]]:
    """Yield tests that have to run in one process, each with the name of a group for it.

    A group of the user's own is taken over; a test that has one is left in it.
    """
    together: dict[pytest.Item, list[pytest.Item]] = {}
    for item in items:
        for mark in item.iter_markers("max_latency_ms"):
            name = mark.kwargs.get("relative_to")
            found = _or_none(name, item, items) if isinstance(name, str) else None
            if found is not None:
                one, other = (together.setdefault(each, [each]) for each in (item, found))
                if one is not other:
                    one += other
                    together.update(dict.fromkeys(other, one))
    for members in {id(members): members for members in together.values()}.values():
        own = [name for member in members for name in _own_groups(member)]
        for member in members:
            if not _own_groups(member):
                yield member, own[0] if own else _id_of(members[0]).replace("::", ".")


def _own_groups(item: pytest.Item) -> list[str]:
    marks = item.iter_markers("xdist_group")
    return [
        str(mark.args[0] if mark.args else mark.kwargs.get("name", "default")) for mark in marks
    ]


def _or_none(name: str, item: pytest.Item, items: Iterable[pytest.Item]) -> pytest.Item | None:
    try:
        return _test_named(name, item, items)
    except BadBudget:
        return None  # it is told when budgets are linked


def _test_named(name: str, item: pytest.Item, items: Iterable[pytest.Item]) -> pytest.Item | None:
    """Find the test that a name means: a whole id, or one in the same module or class."""
    beside = {
        f"{node.nodeid}::{name}" for node in item.listchain()[:-1] if getattr(node, "nodeid", "")
    }
    found = [other for other in items if _id_of(other) == name or _id_of(other) in beside]
    if not found:
        return None
    if len(found) > 1:
        raise BadBudget(f"relative_to={shown(name)} is {len(found)} tests; give the id of one")
    if found[0] is item:
        raise BadBudget(f"relative_to={shown(name)} is the test itself")
    return found[0]


def _id_of(item: pytest.Item) -> str:
    """Return a test's id without the group that pytest-xdist appends to it."""
    parent = "" if item.parent is None else item.parent.nodeid
    return f"{parent}::{item.name}"


def keep_timed(item: pytest.Item, verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """Take out what a test was timed for others, and keep it for them."""
    judged, timed = [], dict[tuple[Any, ...], list[Measurement]]()
    for verdict in verdicts:
        if verdict.budget.origin == FOR_OTHERS:
            key = (_id_of(item), verdict.budget.phase, verdict.budget.device)
            timed.setdefault(key, []).append(verdict.measurement)
        else:
            judged.append(verdict)
    kept = item.config.stash.setdefault(keys.TIMED, {})
    for key, found in timed.items():
        kept[key] = found[0] if len(found) == 1 else _several(len(found))
    return tuple(judged)


def _several(calls: int) -> Measurement:
    return Measurement.nothing(
        Metric.LATENCY,
        reason=f"it calls nnscale {calls} times, and which of them is meant is not said",
        remedy="hold it against a test with one call",
    )


def references_of(
    item: pytest.Item, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
) -> dict[ReferenceKey, Workload | Measurement]:
    """Return what a call in a test may be held against: callables get its inputs."""
    given = (mark.kwargs.get("relative_to") for mark in item.iter_markers("max_latency_ms"))
    calls: Iterable[Callable[..., Any]] = (each for each in given if callable(each))
    found: dict[ReferenceKey, Workload | Measurement] = {
        identity_of(call): Workload(call, args, dict(kwargs or {})) for call in calls
    }
    timed = item.config.stash.get(keys.TIMED, None)
    return {**(timed or {}), **found}
