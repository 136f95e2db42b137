"""What a test's budgets do to the test: how its verdicts end it."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence

import pytest

from pytest_nnscale import keys
from pytest_nnscale.budget import Budget, Outcome, Verdict
from pytest_nnscale.failure import BudgetExceeded
from pytest_nnscale.keys import IDLE, VERDICT
from pytest_nnscale.options import Options
from pytest_nnscale.report.explanation import absence, explain, headline
from pytest_nnscale.verdicts import NnscaleWarning, judge_test


def end_test(item: pytest.Item, budgets: Sequence[Budget]) -> None:
    """Judge a test that has passed, let its report carry the verdicts, and end it as they demand."""
    judged = judge_test(item, budgets)
    verdicts = judged.verdicts
    if any(verdict.budget.limit == math.inf for verdict in verdicts):
        from pytest_nnscale.references import keep_timed

        verdicts = keep_timed(item, verdicts)
    for verdict in verdicts:
        told = json.dumps(verdict.without_details().to_dict(), allow_nan=False)
        item.user_properties.append((VERDICT, told))
    item.user_properties += [(IDLE, origin) for origin in judged.idle]
    enforce(item, verdicts, item.config.stash[keys.OPTIONS])


def enforce(item: pytest.Item, verdicts: Sequence[Verdict], options: Options) -> None:
    """End a test as its verdicts demand: fail, skip, warn, or let it pass."""
    verbosity = item.config.get_verbosity()
    _warn_of_noise(item, verdicts)
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
            longer = verdict.measurement.remedy or "--nnscale-max-time gives it longer"
            item.warn(
                NnscaleWarning(
                    f"{headline(verdict)}; {longer}; --nnscale-inconclusive=fail makes it a failure"
                )
            )
    if verdicts and all(verdict.measurement.missing for verdict in verdicts):
        raise pytest.skip.Exception(absence(verdicts[0]), _use_item_location=True)


def _warn_of_noise(item: pytest.Item, verdicts: Sequence[Verdict]) -> None:
    """Say where a time is closer to its budget than this machine can tell, as far as it was calibrated."""
    if not any(verdict.budget.metric.sampled for verdict in verdicts):
        return
    from pytest_nnscale.noise import doubts, whole_id

    for verdict, doubt in doubts(verdicts, whole_id(item.path, item.nodeid)):
        with contextlib.suppress(NnscaleWarning):
            item.warn(NnscaleWarning(f"{headline(verdict)}; {doubt}"))


def _is_red(verdict: Verdict, options: Options) -> bool:
    if verdict.outcome is Outcome.UNMEASURED:
        missing = verdict.measurement.missing
        return not missing or missing in options.require
    if verdict.measurement.estimated and verdict.budget.metric.value in options.require:
        return True  # what has to be measured was not
    if verdict.outcome is Outcome.INCONCLUSIVE:
        return options.inconclusive == "fail"
    return verdict.outcome is Outcome.OVER
