"""What a test's budgets do to the test: the verdicts of one run, and how they end it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from pytest_nnscale import keys
from pytest_nnscale.budget import Budget, Outcome, Verdict
from pytest_nnscale.failure import BudgetExceeded
from pytest_nnscale.options import Options
from pytest_nnscale.report.explanation import explain, headline
from pytest_nnscale.report.progress import announcer

_NEVER_RAN = "the test ran no tensor operator, so there was nothing to judge"
_RUN_A_MODEL = "call the model in the test, or take the mark off"


class NnscaleWarning(pytest.PytestWarning):
    """A budget that could not be decided."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdicts of one test, and the origins whose budgets did not apply to it."""

    verdicts: tuple[Verdict, ...]
    idle: tuple[str, ...] = ()


def judge_test(item: pytest.Item, budgets: Sequence[Budget], options: Options) -> Judged:
    """Judge a test that has passed: by its calls of the fixture, else by running its body again."""
    from pytest_nnscale.judging import judge_observation, never_measured, stands_in
    from pytest_nnscale.meters.table import Effort

    caller = item.stash.get(keys.CALLER, None)
    if caller is not None:
        verdicts = tuple(caller.verdicts)
        judged = [verdict.budget for verdict in verdicts]
        rest = [
            budget
            for budget in budgets
            if budget not in judged
            and not (budget.device and any(stands_in(other, budget) for other in judged))
        ]
        if caller.raised and not caller.calls:
            reason = "the model raised in every call, and the test went on"
            remedy = "let the error fail the test, or take the mark off"
        elif caller.calls:
            reason = "no call of nnscale measured it"
            remedy = "hand over inputs, nnscale(model, x), and call it in the budget's phase"
        else:
            reason = "the test asked for the nnscale fixture and never called it"
            remedy = "call the model through it: nnscale(model, x)"
    else:
        from pytest_nnscale.body import observe_body

        observation = observe_body(item)
        ran = observation.count is not None and observation.count.operators > 0
        failed = observation.count is None
        effort = Effort(max_time_s=options.max_time, confidence=options.confidence)
        if ran or failed or (observation.count is not None and observation.count.threads):
            with announcer(item.config)(budgets, observation.subject):
                return Judged(judge_observation(budgets, observation, effort))
        verdicts, rest = (), list(budgets)
        reason, remedy = _NEVER_RAN, _RUN_A_MODEL
    blamed = [never_measured(budget, reason=reason, remedy=remedy) for budget in rest if budget.own]
    idle = tuple(dict.fromkeys(budget.origin for budget in rest if not budget.own))
    return Judged((*verdicts, *blamed), idle)


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
        item.warn(
            NnscaleWarning(
                f"{headline(verdict)}; --nnscale-max-time gives it longer, "
                "--nnscale-inconclusive=fail makes it a failure"
            )
        )
    if verdicts and all(verdict.measurement.missing for verdict in verdicts):
        first = verdicts[0]
        raise pytest.skip.Exception(
            f"{headline(first)}; {first.measurement.remedy}", _use_item_location=True
        )


def _is_red(verdict: Verdict, options: Options) -> bool:
    if verdict.outcome is Outcome.UNMEASURED:
        missing = verdict.measurement.missing
        return not missing or missing in options.require
    if verdict.outcome is Outcome.INCONCLUSIVE:
        return options.inconclusive == "fail"
    return verdict.outcome is Outcome.OVER
