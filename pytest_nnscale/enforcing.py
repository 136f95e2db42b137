"""What a test's budgets do to the test: the verdicts of one run, and how they end it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from pytest_nnscale import keys
from pytest_nnscale.budget import Budget, Outcome, Verdict
from pytest_nnscale.failure import BudgetExceeded
from pytest_nnscale.options import Options
from pytest_nnscale.relevance import touches_torch
from pytest_nnscale.report.explanation import absence, explain, headline
from pytest_nnscale.report.progress import announcer

if TYPE_CHECKING:
    from pytest_nnscale.calling import NnscaleCaller
    from pytest_nnscale.meters.effort import Effort

_NEVER_RAN = "the test ran no tensor operator, so there was nothing to judge"
_RUN_A_MODEL = "call the model in the test, or take the mark off"
_NO_CONTRACTION = "the test body did no contraction (matrix product, convolution, attention)"
_RUN_IT_HERE = (
    "call the model in the body itself: what a fixture, a cache or another process computes "
    "is not seen"
)


class NnscaleWarning(pytest.PytestWarning):
    """A budget that could not be decided."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdicts of one test, and the origins whose budgets did not apply to it."""

    verdicts: tuple[Verdict, ...]
    idle: tuple[str, ...] = ()


def effort_of(config: pytest.Config) -> Effort:
    """Return how sampled metrics are measured in a session: as its options say."""
    if keys.EFFORT not in config.stash:
        from pytest_nnscale.meters.effort import Effort

        options = config.stash[keys.OPTIONS]
        config.stash[keys.EFFORT] = Effort(options.max_time, options.confidence)
    return config.stash[keys.EFFORT]


def judge_test(item: pytest.Item, budgets: Sequence[Budget]) -> Judged:
    """Judge a test that has passed: by its calls of the fixture, else by running its body again."""
    caller = item.stash.get(keys.CALLER, None)
    if caller is not None:
        caller.closed = True
    if caller is not None and (caller.calls or caller.raised):
        return _judge_calls(caller, budgets)
    judged = _judge_body(item, budgets)
    if caller is not None:
        judged = Judged(tuple(_never_called(verdict) for verdict in judged.verdicts), judged.idle)
    return judged


def _judge_calls(caller: NnscaleCaller, budgets: Sequence[Budget]) -> Judged:
    from pytest_nnscale.judging import never_measured, stands_in

    if not caller.calls:
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
    return _with_rest(verdicts, rest, reason=reason, remedy=remedy)


def _judge_body(item: pytest.Item, budgets: Sequence[Budget]) -> Judged:
    from pytest_nnscale.body import observe_body
    from pytest_nnscale.judging import judge_observation
    from pytest_nnscale.measurement import Metric

    observation = observe_body(item)
    count = observation.count
    unseen = count is not None and bool(count.threads or count.processes or count.raised)
    if count is not None and not count.operators and not unseen:
        return _with_rest((), budgets, reason=_NEVER_RAN, remedy=_RUN_A_MODEL)
    rest: list[Budget] = []
    if count is None and not touches_torch(item):
        # Inherited by a test that has nothing to do with models, and cannot run twice.
        rest = [budget for budget in budgets if not budget.own]
    elif count is not None and not count.flops and not count.uncounted and not unseen:
        # Whoever states a budget on FLOPs does not mean a sum over what was computed elsewhere.
        rest = [b for b in budgets if b.metric in (Metric.FLOPS, Metric.MACS)]
    with announcer(item.config)(budgets, observation.subject):
        judged = [budget for budget in budgets if budget not in rest]
        verdicts = judge_observation(judged, observation, effort_of(item.config))
    return _with_rest(verdicts, rest, reason=_NO_CONTRACTION, remedy=_RUN_IT_HERE)


def _with_rest(
    verdicts: tuple[Verdict, ...], rest: Sequence[Budget], *, reason: str, remedy: str
) -> Judged:
    """Blame the test for its own budgets that nothing judged; inherited ones do not apply to it."""
    from pytest_nnscale.judging import never_measured

    blamed = (never_measured(b, reason=reason, remedy=remedy) for b in rest if b.own)
    idle = tuple(dict.fromkeys(budget.origin for budget in rest if not budget.own))
    return Judged((*verdicts, *blamed), idle)


def _never_called(verdict: Verdict) -> Verdict:
    """Say of a test that ran nothing that it has the fixture, and might have forgotten it."""
    if verdict.measurement.reason != _NEVER_RAN:
        return verdict
    return replace(
        verdict,
        measurement=replace(
            verdict.measurement,
            reason="the test asked for the nnscale fixture and never called it",
            remedy="call the model through it: nnscale(model, x)",
        ),
    )


def enforce(item: pytest.Item, verdicts: Sequence[Verdict], options: Options) -> None:
    """End a test as its verdicts demand: fail, skip, warn, or let it pass."""
    verbosity = item.config.get_verbosity()
    red = [verdict for verdict in verdicts if _is_red(verdict, options)]
    if red:
        several = len({verdict.call for verdict in verdicts if verdict.call}) > 1
        raise BudgetExceeded(
            explain(red, verbosity=verbosity, several_calls=several), pytrace=False
        )
    undecided = [v for v in verdicts if v.outcome is Outcome.INCONCLUSIVE]
    for verdict in undecided:
        # Where warnings are errors it is still none: the closing line says it as well.
        with contextlib.suppress(NnscaleWarning):
            item.warn(
                NnscaleWarning(
                    f"{headline(verdict)}; --nnscale-max-time gives it longer, "
                    "--nnscale-inconclusive=fail makes it a failure"
                )
            )
    if verdicts and all(verdict.measurement.missing for verdict in verdicts):
        raise pytest.skip.Exception(absence(verdicts[0]), _use_item_location=True)


def _is_red(verdict: Verdict, options: Options) -> bool:
    if verdict.outcome is Outcome.UNMEASURED:
        missing = verdict.measurement.missing
        return not missing or missing in options.require
    if verdict.outcome is Outcome.INCONCLUSIVE:
        return options.inconclusive == "fail"
    return verdict.outcome is Outcome.OVER
