"""The time that what was benchmarked takes: by pytest-benchmark's rounds, where these can tell it.

They cannot where it was disabled and ran none, where it does not wait for the device, and where its
timer may count something else. The call is then timed as any other is, setup and teardown apart.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.judging import judge_observation
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters.dressed import measure_dressed
from pytest_nnscale.meters.rounds import Rounds, measure_rounds
from pytest_nnscale.target import Target

if TYPE_CHECKING:
    from pytest_nnscale.budget import Budget, Verdict
    from pytest_nnscale.meters.effort import Effort
    from pytest_nnscale.observation import Observation

_WALL_CLOCKS = (time.perf_counter, time.monotonic, time.time)


class Benchmark(NamedTuple):
    """A fixture of pytest-benchmark that has been used, and what it was given.

    `more` tells how to ask for {0} rounds, `disturbed` why these may have been disturbed.
    """

    fixture: Any
    target: Target
    more: str
    disturbed: CannotMeasure | None = None

    @property
    def rounds(self) -> Rounds:
        """The rounds that it ran, in seconds per call."""
        stats = self.fixture.stats
        seconds = tuple(stats.stats.data)  # already divided by the iterations
        return Rounds(seconds, "pytest-benchmark", self.more.format, stats.iterations)


def judge_timing(
    budgets: Sequence[Budget],
    seen: Observation,
    benchmark: Benchmark,
    effort: Effort,
    *,
    announced: AbstractContextManager[None],
) -> tuple[Verdict, ...]:
    """Judge latency, and what follows from it, by the rounds of a benchmark.

    That it could not be counted what they did does not keep them from telling the time. `announced`
    stands around any other timing.
    """
    target = benchmark.target
    if effort.timer is not None:
        return judge_observation(budgets, seen, effort)
    if seen.count is None:
        device = _known_device(target)
        if device is None or _why_anew(benchmark.fixture, device):
            return judge_observation(budgets, seen, effort)
        seen = replace(seen, device=device)
    latency = [budget for budget in budgets if budget.metric is Metric.LATENCY]
    rest = [budget for budget in budgets if budget not in latency]
    bare = replace(seen, repeat=target.function)  # for timers that do not call it
    why_anew = _why_anew(benchmark.fixture, seen.device)
    if not why_anew:
        effort = effort._replace(timer=partial(_by_rounds, benchmark, effort.confidence))
        # They are over: nobody has to be held off any more, and nothing is to be put back.
        over = effort._replace(quiet=nullcontext)
        verdicts = judge_observation(latency, replace(bare, guard=nullcontext), over)
        return verdicts + judge_observation(rest, seen, effort)
    with announced:
        if target.dressed:
            dressed = effort._replace(timer=partial(_dressed, target, effort, latency))
            verdicts = judge_observation(latency, bare, dressed)
            verdicts += judge_observation(rest, seen, effort)
        else:
            verdicts = judge_observation(budgets, seen, effort)
    return tuple(_noted(verdict, why_anew) for verdict in verdicts)


def _by_rounds(
    benchmark: Benchmark, confidence: float, _call: object, *, quantile: float, **_where: str
) -> Measurement:
    if benchmark.disturbed is not None:
        raise benchmark.disturbed
    return measure_rounds(benchmark.rounds, quantile=quantile, confidence=confidence)


def _dressed(
    target: Target,
    effort: Effort,
    budgets: Sequence[Budget],
    call: object,
    *,
    quantile: float,
    device: str,
) -> Measurement:
    """Time a dressed call until it is known what a budget asks, where one asks for that quantile."""
    limits = {budget.limit for budget in budgets if (budget.quantile or 0.5) == quantile}
    limit_s = limits.pop() if len(limits) == 1 else None
    if limit_s is not None and not math.isfinite(limit_s):
        limit_s = None
    return measure_dressed(target, effort, call, quantile=quantile, device=device, limit_s=limit_s)


def _known_device(target: Target) -> str | None:
    """Return where a call runs that was not counted, and None where nothing tells of that."""
    import torch

    from pytest_nnscale.workload import Workload

    if not torch.accelerator.is_available():
        return "cpu"
    workload = Workload(target.function, tuple(target.args), target.kwargs)
    return workload.device if workload.modules else None


def _why_anew(fixture: Any, device: str) -> str:
    """Say why the rounds of a fixture do not tell a call's latency, or nothing where they do."""
    if fixture.stats is None:
        return "pytest-benchmark is disabled (by --benchmark-disable, or by pytest-xdist)"
    if device != "cpu":
        return f"pytest-benchmark does not wait for {device.partition(':')[0]}"
    if fixture.stats.options["timer"] not in _WALL_CLOCKS:
        return "--benchmark-timer is none that is known to be a wall clock"
    return ""


def _noted(verdict: Verdict, why_anew: str) -> Verdict:
    found = verdict.measurement
    if found.value is None:
        return verdict
    notes = (*found.notes, f"timed by pytest-nnscale: {why_anew}")
    return replace(verdict, measurement=replace(found, notes=notes))
