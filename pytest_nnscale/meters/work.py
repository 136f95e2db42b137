"""FLOPs, MACs, kernels and memory: what one counted run did.

FLOPs count: contractions (matrix products, convolutions, attention), 1 multiply-accumulate =
2 FLOP. Not: elementwise work, normalisation, pooling, data movement. MACs are half of the FLOPs.
Kernels count: operators dispatched that compute something. Not: views, metadata, bare allocation.
Memory counts: the peak of live bytes in tensor storages, weights and inputs included. Not: the
Python process, allocator caches, kernels' private workspaces.
Error sources: an operator without a formula makes FLOPs a lower bound, and says which it was; one
that TorchScript runs past the dispatcher makes all of them lower bounds. A call that ran no
operator, or ended half way, or worked in other threads or processes, is no measurement.
Reference: the formulas of torch.utils.flop_counter and of pytest_nnscale.counting.formulas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_nnscale.measurement import Deferred, Measurement, Metric, Share

if TYPE_CHECKING:
    from pytest_nnscale.budget import Phase
    from pytest_nnscale.counting.counter import Count, Uncounted


def measure_work(
    metric: Metric, count: Count, phase: Phase, *, subject: str, notes: tuple[str, ...] = ()
) -> Measurement:
    """Read FLOPs, MACs, kernels or memory of a phase off a count.

    In `inference` the part that ran outside backward passes is meant; `training` needs one.
    """
    unmeasured = _why_unmeasured(metric, count, phase)
    if unmeasured is not None:
        reason, remedy = unmeasured
        return Measurement.nothing(metric, reason=reason, remedy=remedy, subject=subject)
    value = _amount(metric, count, phase)
    if value is None:
        return Measurement.nothing(
            metric, reason="it was counted without memory", remedy="ask for memory", subject=subject
        )
    whole = phase == "training" or not count.backward
    shares = Deferred(lambda: _shares(metric, count) if whole else ())
    uncounted = [
        unknown
        for unknown in count.uncounted
        if (phase == "training" or not unknown.backward)
        and (unknown.unseen or metric in (Metric.FLOPS, Metric.MACS))
    ]
    if metric is Metric.MEMORY and count.unopened:
        return Measurement.at_least(
            metric,
            value,
            reason=f"{count.unopened[0]} keeps weights packed in a form that cannot be opened here",
            remedy="measure the model before it is packed",
            method=count.method,
            subject=subject,
            shares=shares,
            notes=notes,
        )
    if uncounted:
        return Measurement.at_least(
            metric,
            value,
            reason="; ".join(_describe(unknown) for unknown in uncounted[:3])
            + (f"; and {len(uncounted) - 3} more" if len(uncounted) > 3 else ""),
            remedy=uncounted[0].remedy,
            method=count.method,
            subject=subject,
            shares=shares,
            notes=notes,
        )
    return Measurement.exact(
        metric, value, method=count.method, subject=subject, shares=shares, notes=notes
    )


def _why_unmeasured(metric: Metric, count: Count, phase: Phase) -> tuple[str, str] | None:
    """Say why a count is none of the call that was meant, and what to do about it."""
    if count.threads:
        return (
            f"the test started threads ({', '.join(count.threads)}), where nothing is seen",
            "use the nnscale fixture and call the model in the test's own thread",
        )
    if count.processes:
        return (
            f"the test gave work to processes ({', '.join(count.processes)}), where nothing is seen",
            "use the nnscale fixture and call the model in the test's own process",
        )
    if phase == "training" and not count.backward:
        return (
            "phase='training', but no backward pass ran",
            "call .backward() in the test, or drop phase='training'",
        )
    if count.raised:
        return (
            f"{', '.join(count.raised)} raised half way, so only part of its work was seen",
            "let the error out of the test, or mark another test",
        )
    known = count.uncounted and metric in (Metric.FLOPS, Metric.MACS)
    if not count.operators and not known:
        return (
            "the call ran no tensor operator",
            "hand over a call that runs the model here, in this thread and process; call "
            "generators to their end and await coroutines",
        )
    return None


def _amount(metric: Metric, count: Count, phase: Phase) -> int | None:
    whole = phase == "training"
    if metric is Metric.FLOPS:
        return count.flops if whole else count.forward_flops
    if metric is Metric.MACS:
        # Rounded up: an odd FLOP count, of a formula that is no contraction, is not forgiven.
        return -(-(count.flops if whole else count.forward_flops) // 2)
    if metric is Metric.KERNELS:
        return count.kernels if whole else count.forward_kernels
    return count.memory_bytes if whole else count.forward_memory_bytes


def _shares(metric: Metric, count: Count) -> tuple[Share, ...]:
    if metric is Metric.MACS:
        return tuple(
            Share(m.path, m.type, -(-m.own_flops // 2), -(-m.total_flops // 2))
            for m in count.modules
        )
    names = {Metric.FLOPS: "flops", Metric.KERNELS: "kernels", Metric.MEMORY: "memory"}
    name = names[metric]
    return tuple(
        Share(m.path, m.type, getattr(m, f"own_{name}"), getattr(m, f"total_{name}"))
        for m in count.modules
    )


def _describe(unknown: Uncounted) -> str:
    times = "once" if unknown.calls == 1 else f"{unknown.calls} times"
    if unknown.shapes:
        times += f" on {unknown.shapes}" if unknown.calls == 1 else f", first on {unknown.shapes}"
    if unknown.module:
        where = f"in {unknown.module} ({unknown.module_type})"
    else:
        where = f"in {unknown.module_type} itself" if unknown.module_type else "outside any module"
    what = "TorchScript hides" if unknown.unseen else "no formula for"
    return f"{what} {unknown.operator} {where}, called {times}"
