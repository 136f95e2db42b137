"""Budgets held against what was observed: from an observation to verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pytest_nnscale.budget import Budget, Outcome, Verdict, judge
from pytest_nnscale.comparing import FOR_OTHERS, for_others, measure_beside
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters.effort import Effort
from pytest_nnscale.meters.table import measure
from pytest_nnscale.observation import Observation
from pytest_nnscale.workload import same_device


def judge_observation(
    budgets: Sequence[Budget], observation: Observation, effort: Effort, *, call: int = 0
) -> tuple[Verdict, ...]:
    """Measure what the budgets ask for, each number once, and judge every budget."""
    verdicts = {}
    timed: dict[str, Measurement] = {}  # the median latency of each phase
    # What others are held against is known most closely, and may tell all the rest.
    for place, budget in sorted(enumerate(budgets), key=lambda each: each[1].origin != FOR_OTHERS):
        if budget.device is not None and not same_device(budget.device, observation.device):
            measurement = _elsewhere(budget, observation)
            here = [
                b for b in budgets if b.device is None or same_device(b.device, observation.device)
            ]
            # The same test measures it when it runs there; a machine without is still said.
            if not measurement.missing and any(stands_in(other, budget) for other in here):
                continue
        elif budget.relative_to:
            measurement = measure_beside(observation, budget, effort)
        else:
            measurement = _measured(budget, observation, effort, timed)
        verdicts[place] = Verdict(budget, measurement, judge(budget, measurement), call)
    return tuple(verdicts[place] for place in sorted(verdicts))


def _measured(
    budget: Budget, observation: Observation, effort: Effort, timed: dict[str, Measurement]
) -> Measurement:
    """Measure what a budget asks for, unless what was timed before tells it."""
    limit = budget.limit if math.isfinite(budget.limit) else None
    before = timed.get(budget.phase)
    is_median = budget.metric is Metric.LATENCY and budget.quantile is None
    if is_median and before is not None and _tells(before, budget):
        return before
    found = measure(
        budget.metric,
        observation,
        phase=budget.phase,
        quantile=budget.quantile,
        trainable=budget.trainable,
        nonzero=budget.nonzero,
        effort=for_others(effort) if budget.origin == FOR_OTHERS else effort,
        limit=limit,
        timed=before,
    )
    if is_median:
        timed[budget.phase] = found
    return found


def _tells(before: Measurement, budget: Budget) -> bool:
    """Tell whether a latency is on one side of a budget for sure, or could not be measured."""
    if before.lower is None or before.upper is None:
        return True  # nor could it be a second time
    if budget.origin == FOR_OTHERS:
        return True
    return before.upper <= budget.limit or before.lower > budget.limit


def never_measured(budget: Budget, *, reason: str, remedy: str) -> Verdict:
    """Return the verdict on a budget for which nothing ran."""
    nothing = Measurement.nothing(budget.metric, reason=reason, remedy=remedy)
    return Verdict(budget, nothing, Outcome.UNMEASURED)


def stands_in(other: Budget, budget: Budget) -> bool:
    """Tell whether another budget limits the same number where a device's budget does not apply.

    Budgets for several devices stand side by side on a test that runs on one of them at a time.
    """
    if FOR_OTHERS in (other.origin, budget.origin):
        return False  # nobody is judged by it
    return (
        other is not budget and replace(other, device=None).key == replace(budget, device=None).key
    )


def _elsewhere(budget: Budget, observation: Observation) -> Measurement:
    device = str(budget.device)
    kind = device.partition(":")[0]
    if _available(kind):
        return Measurement.nothing(
            budget.metric,
            reason=f"the model ran on {observation.device}, this budget is for {device}",
            remedy=f"move the model and its inputs to {device}, or drop device=",
            subject=observation.subject,
        )
    return Measurement.nothing(
        budget.metric,
        reason=f"this machine has no {kind} device",
        remedy="run it where one is",
        subject=observation.subject,
        missing=kind,
    )


def _available(kind: str) -> bool:
    import torch

    if kind in ("cpu", "meta"):
        return True
    backend = getattr(torch, kind, None) or getattr(torch.backends, kind, None)
    return bool(backend is not None and backend.is_available())
