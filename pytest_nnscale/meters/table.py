"""Which meter measures which metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters.effort import Effort
from pytest_nnscale.observation import Observation

if TYPE_CHECKING:
    from pytest_nnscale.budget import Phase

EXECUTED = frozenset({Metric.FLOPS, Metric.MACS, Metric.KERNELS, Metric.MEMORY})


_USUAL = Effort()


def measure(
    metric: Metric,
    observation: Observation,
    *,
    phase: Phase = "inference",
    quantile: float | None = None,
    trainable: bool = False,
    nonzero: bool = False,
    effort: Effort = _USUAL,
    limit: float | None = None,
    timed: Measurement | None = None,
) -> Measurement:
    """Measure one metric of a workload that was observed; never raises for what cannot be.

    A sampled one is measured until it is known on which side of `limit` it lies. `timed` is the
    median latency of the same, where that was measured before.
    """
    seen = observation
    if metric.structural:
        if not seen.modules and seen.reason:
            return _nothing(metric, seen)
        return _structural(metric, seen, trainable=trainable, nonzero=nonzero)
    if metric in EXECUTED:
        if seen.count is None:
            return _nothing(metric, seen)
        from pytest_nnscale.meters.work import measure_work

        return measure_work(metric, seen.count, phase, subject=seen.subject, notes=seen.notes)
    if seen.device.startswith("meta"):
        return Measurement.nothing(
            metric,
            reason="the model is on the meta device, where nothing is computed",
            remedy="move model and inputs to a real device",
            subject=seen.subject,
        )
    if seen.count is not None and not seen.count.operators:
        return Measurement.nothing(
            metric,
            reason="the call ran no tensor operator",
            remedy="hand over a call that runs the model here: iterate what it generates, "
            "await what it returns",
            subject=seen.subject,
        )
    if seen.count is not None and seen.count.backward != (phase == "training"):
        # A repeat does all that the body does: its time is that of no other phase.
        did = "runs a backward pass" if seen.count.backward else "runs no backward pass"
        right = "training" if seen.count.backward else "inference"
        return Measurement.nothing(
            metric,
            reason=f"phase={phase!r}, but what would be repeated {did}",
            remedy=f"say phase={right!r}, or use the fixture",
            subject=seen.subject,
        )
    if seen.repeat is None:
        return _nothing(metric, seen)
    try:
        with seen.guard(), effort.quiet(seen.device):
            if metric is Metric.EFFICIENCY:
                found = _efficiency(seen, phase, effort, limit, timed)
            else:
                found = _sample(metric, seen.repeat, seen.device, quantile, effort, limit)
    except CannotMeasure as error:  # others would not be held off, or were not
        return Measurement.nothing(
            metric, reason=error.reason, remedy=error.remedy, subject=seen.subject
        )
    return replace(found, subject=seen.subject)


def _sample(
    metric: Metric,
    repeat: Callable[[], object],
    device: str,
    quantile: float | None,
    effort: Effort,
    limit: float | None,
) -> Measurement:
    if metric is Metric.LATENCY:
        from pytest_nnscale.meters.latency import measure_latency

        quantile = 0.5 if quantile is None else quantile
        if effort.timer is not None:
            return effort.timer(repeat, quantile=quantile, device=device)
        return measure_latency(
            repeat,
            quantile=quantile,
            limit_s=limit,
            confidence=effort.confidence,
            max_time_s=effort.max_time_s,
            device=device,
            flush_l2=effort.flush_l2,
        )
    from pytest_nnscale.meters.energy import measure_energy

    return measure_energy(
        repeat,
        device=device,
        confidence=effort.confidence,
        max_time_s=effort.max_time_s,
    )


def _efficiency(
    seen: Observation,
    phase: Phase,
    effort: Effort,
    limit: float | None,
    timed: Measurement | None,
) -> Measurement:
    from pytest_nnscale.meters.efficiency import measure_efficiency

    if seen.count is None or seen.repeat is None:
        return _nothing(Metric.EFFICIENCY, seen)
    repeat = seen.repeat
    return measure_efficiency(
        repeat,
        flops=measure(Metric.FLOPS, seen, phase=phase),
        timer=lambda limit_s: _sample(Metric.LATENCY, repeat, seen.device, None, effort, limit_s),
        timed=timed,
        limit=limit,
        device=seen.device,
    )


def _structural(
    metric: Metric, seen: Observation, *, trainable: bool, nonzero: bool
) -> Measurement:
    if not seen.modules and not seen.elsewhere:
        return Measurement.nothing(
            metric,
            reason="no torch.nn.Module was called, so there are no parameters to see",
            remedy="call the module itself, or hand it to nnscale.profile(model)",
            subject=seen.subject,
        )
    if metric is Metric.PARAMS:
        from pytest_nnscale.meters.params import measure_params

        return measure_params(
            seen.modules,
            trainable=trainable,
            nonzero=nonzero,
            elsewhere=seen.elsewhere,
            inventory=seen.inventory,
        )
    from pytest_nnscale.meters.size import measure_size

    return measure_size(seen.modules, elsewhere=seen.elsewhere, inventory=seen.inventory)


def _nothing(metric: Metric, seen: Observation) -> Measurement:
    return Measurement.nothing(metric, reason=seen.reason, remedy=seen.remedy, subject=seen.subject)
