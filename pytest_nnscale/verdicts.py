"""The verdicts of one test: by its calls of the fixture, its benchmark, or its body run again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from pytest_nnscale import keys
from pytest_nnscale.budget import Budget, Verdict
from pytest_nnscale.measurement import Metric
from pytest_nnscale.relevance import touches_torch
from pytest_nnscale.report.progress import announcer

if TYPE_CHECKING:
    from pytest_nnscale.calling import NnscaleCaller
    from pytest_nnscale.observation import Observation

# Reasons and their remedies; {0} is what was meant to run a model.
_NEVER_RAN = (
    "{0} ran no tensor operator, so there was nothing to judge",
    "run the model in {0}, or take the mark off",
)
_NO_CONTRACTION = (
    "{0} did no contraction (matrix product, convolution, attention)",
    "call the model in {0} itself: what a fixture, a cache or another process computes is not seen",
)
_NEVER_CALLED = (
    "the test asked for the nnscale fixture and never called it",
    "call the model through it: nnscale(model, x)",
)
_TOO_LATE = (
    "the test was marked after its benchmark had run",
    "write the mark on the test",
)


class NnscaleWarning(pytest.PytestWarning):
    """A budget that could not be decided."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdicts of one test, and the origins whose budgets did not apply to it."""

    verdicts: tuple[Verdict, ...]
    idle: tuple[str, ...] = ()


def judge_test(item: pytest.Item, budgets: Sequence[Budget]) -> Judged:
    """Judge a test that has passed: by its calls of a fixture, else by running its body again."""
    caller, benchmarked = item.stash.get(keys.CALLER, None), item.stash.get(keys.BENCHMARKED, None)
    if caller is not None:
        caller.closed = True
    timed = Judged(())
    if benchmarked is not None:
        timed = benchmarked.close(budgets)
        budgets = [budget for budget in budgets if budget not in benchmarked.taken]
    if caller is not None and (caller.calls or caller.raised or caller.verdicts):
        judged = _judge_calls(caller, budgets)
    elif benchmarked is not None and benchmarked.used:
        reason, remedy = _TOO_LATE if caller is None else _NEVER_CALLED
        judged = with_rest((), budgets, reason=reason, remedy=remedy)
    else:
        judged = _judge_body(item, budgets)
    if caller is not None:
        judged = Judged(tuple(_never_called(verdict) for verdict in judged.verdicts), judged.idle)
    from pytest_nnscale.taking_turns import noted

    verdicts = noted(item.config, (*judged.verdicts, *timed.verdicts))
    return Judged(verdicts, (*judged.idle, *timed.idle))


def _judge_calls(caller: NnscaleCaller, budgets: Sequence[Budget]) -> Judged:
    from pytest_nnscale.judging import never_measured, stands_in

    if not caller.verdicts and not caller.calls:
        # Also inherited budgets are meant: the test did hand over a model.
        reason = "the model raised in every call, and the test went on"
        remedy = "let the error fail the test, or take the mark off"
        return Judged(tuple(never_measured(b, reason=reason, remedy=remedy) for b in budgets))
    verdicts = tuple(caller.verdicts)
    judged = [verdict.budget for verdict in verdicts]
    rest = [
        budget
        for budget in budgets
        if budget not in judged
        and not (budget.device and any(stands_in(other, budget) for other in judged))
    ]
    reason = "no call of nnscale measured it"
    remedy = "hand over inputs, nnscale(model, x), and call it in the budget's phase"
    return with_rest(verdicts, rest, reason=reason, remedy=remedy)


def _judge_body(item: pytest.Item, budgets: Sequence[Budget]) -> Judged:
    from pytest_nnscale.body import observe_body
    from pytest_nnscale.judging import judge_observation
    from pytest_nnscale.references import references_of
    from pytest_nnscale.taking_turns import effort_of

    observation = replace(observe_body(item), references=references_of(item))

    def judge(chosen: Sequence[Budget]) -> tuple[Verdict, ...]:
        with announcer(item.config)(budgets, observation.subject):
            return judge_observation(chosen, observation, effort_of(item.config))

    return judge_observed(item, budgets, observation, judge)


def judge_observed(
    item: pytest.Item,
    budgets: Sequence[Budget],
    observation: Observation,
    judge: Callable[[Sequence[Budget]], tuple[Verdict, ...]],
    *,
    what: str = "",
) -> Judged:
    """Judge by what was seen of a test, or of `what` in it; budgets that do not apply are idle."""

    count = observation.count
    unseen = count is not None and bool(count.threads or count.processes or count.raised)
    if count is not None and not count.operators and not unseen:
        never_ran, remedy = (words.format(what or "the test") for words in _NEVER_RAN)
        return with_rest((), budgets, reason=never_ran, remedy=remedy)
    rest: list[Budget] = []
    if count is None and not touches_torch(item):
        # Inherited by a test that has nothing to do with models, and cannot run twice.
        rest = [budget for budget in budgets if not budget.own]
    elif count is not None and not count.flops and not count.uncounted and not unseen:
        # Whoever states a budget on FLOPs does not mean a sum over what was computed elsewhere.
        rest = [b for b in budgets if b.metric in (Metric.FLOPS, Metric.MACS)]
    verdicts = judge([budget for budget in budgets if budget not in rest])
    no_contraction, remedy = (words.format(what or "the test body") for words in _NO_CONTRACTION)
    return with_rest(verdicts, rest, reason=no_contraction, remedy=remedy)


def with_rest(
    verdicts: tuple[Verdict, ...], rest: Sequence[Budget], *, reason: str, remedy: str
) -> Judged:
    """Blame the test for its own budgets that nothing judged; inherited ones do not apply to it."""
    from pytest_nnscale.judging import never_measured

    blamed = (never_measured(b, reason=reason, remedy=remedy) for b in rest if b.own)
    idle = tuple(dict.fromkeys(budget.origin for budget in rest if not budget.own))
    return Judged((*verdicts, *blamed), idle)


def _never_called(verdict: Verdict) -> Verdict:
    """Say of a test that ran nothing that it has the fixture, and might have forgotten it."""
    if verdict.measurement.reason != _NEVER_RAN[0].format("the test"):
        return verdict
    reason, remedy = _NEVER_CALLED
    return replace(verdict, measurement=replace(verdict.measurement, reason=reason, remedy=remedy))
