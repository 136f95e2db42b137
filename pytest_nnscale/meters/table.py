"""Which meter measures which metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters.effort import Effort
from pytest_nnscale.meters.repeats import sampled
from pytest_nnscale.observation import Observation

if TYPE_CHECKING:
    from pytest_nnscale.budget import Phase
    from pytest_nnscale.timing.sampling import Limit

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

    def take(repeat: Callable[[], object]) -> Measurement:
        if metric is Metric.EFFICIENCY:
            return _efficiency(seen, phase, effort, limit, timed)
        if metric is Metric.LATENCY:
            effort.about(phase, seen.subject)
            return time_repeats(repeat, seen.device, effort, quantile=quantile, limit_s=limit)
        return _energy(repeat, seen, effort, limit)

    return sampled(metric, seen, phase, effort, take)


def time_repeats(
    repeat: Callable[[], object],
    device: str,
    effort: Effort,
    *,
    quantile: float | None = None,
    limit_s: Limit | None = None,
) -> Measurement:
    """Measure a latency as an effort says, until it is known on which side of a limit it lies."""
    quantile = 0.5 if quantile is None else quantile
    if effort.timer is not None:
        return effort.timer(repeat, quantile=quantile, device=device)
    from pytest_nnscale.meters.latency import measure_latency

    return measure_latency(
        repeat,
        quantile=quantile,
        limit_s=limit_s,
        confidence=effort.confidence,
        max_time_s=effort.max_time_s,
        device=device,
        flush_l2=effort.flush_l2,
    )


def _energy(
    repeat: Callable[[], object], seen: Observation, effort: Effort, limit_j: float | None
) -> Measurement:
    from pytest_nnscale.meters.energy import measure_energy
    from pytest_nnscale.power.wanted import Wanted

    devices = {each for each in seen.count.devices if ":" in each} if seen.count else set()
    if len(devices) > 1:
        # The counter of one of them would be half the joules, and pass.
        raise CannotMeasure(
            f"the call runs on {' and '.join(sorted(devices))}, and joules are counted of one device",
            remedy="measure what runs on each by itself",
        )
    return measure_energy(
        repeat,
        device=seen.device,
        limit_j=limit_j,
        wanted=effort.energy or Wanted(),
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
        timer=lambda limit_s: time_repeats(repeat, seen.device, effort, limit_s=limit_s),
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
