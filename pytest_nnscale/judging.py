"""Budgets held against what was observed: from an observation to verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pytest_nnscale.budget import Budget, Outcome, Verdict, judge
from pytest_nnscale.comparing import measure_beside
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters.effort import Effort
from pytest_nnscale.meters.table import measure
from pytest_nnscale.observation import Observation
from pytest_nnscale.workload import same_device


def judge_observation(
    budgets: Sequence[Budget], observation: Observation, effort: Effort, *, call: int = 0
) -> tuple[Verdict, ...]:
    """Measure what the budgets ask for, each number once, and judge every budget."""
    verdicts = []
    timed: dict[str, Measurement] = {}  # the median latency of each phase
    for budget in budgets:
        if budget.device is not None and not same_device(budget.device, observation.device):
            measurement = _elsewhere(budget, observation)
            here = [
                b for b in budgets if b.device is None or same_device(b.device, observation.device)
            ]
            # The same test measures it when it runs there; a machine without is still said.
            if not measurement.missing and any(stands_in(other, budget) for other in here):
                continue
        elif budget.relative_to:
            measurement = measure_beside(
                observation, budget.relative_to, limit=budget.limit, effort=effort
            )
        else:
            measurement = measure(
                budget.metric,
                observation,
                phase=budget.phase,
                quantile=budget.quantile,
                trainable=budget.trainable,
                nonzero=budget.nonzero,
                effort=effort,
                limit=budget.limit if math.isfinite(budget.limit) else None,
                timed=timed.get(budget.phase),
            )
            if budget.metric is Metric.LATENCY and budget.quantile is None:
                timed[budget.phase] = measurement
        verdicts.append(Verdict(budget, measurement, judge(budget, measurement), call))
    return tuple(verdicts)


def never_measured(budget: Budget, *, reason: str, remedy: str) -> Verdict:
    """Return the verdict on a budget for which nothing ran."""
    nothing = Measurement.nothing(budget.metric, reason=reason, remedy=remedy)
    return Verdict(budget, nothing, Outcome.UNMEASURED)


def stands_in(other: Budget, budget: Budget) -> bool:
    """Tell whether another budget limits the same number where a device's budget does not apply.

    Budgets for several devices stand side by side on a test that runs on one of them at a time.
    """
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
