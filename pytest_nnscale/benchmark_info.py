"""The exact numbers of a benchmarked call, for --benchmark-json and what reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_nnscale.measurement import Metric

if TYPE_CHECKING:
    from pytest_nnscale.observation import Observation

_EXACT = {
    "params": Metric.PARAMS,
    "flops": Metric.FLOPS,
    "macs": Metric.MACS,
    "size_bytes": Metric.SIZE,
    "memory_bytes": Metric.MEMORY,
    "kernels": Metric.KERNELS,
}


def inform(fixture: Any, seen: Observation) -> None:
    """Set the exact numbers beside the timings of a fixture of pytest-benchmark."""
    from pytest_nnscale.meters.table import measure

    found = {name: measure(metric, seen) for name, metric in _EXACT.items()}
    told: dict[str, Any] = {"subject": seen.subject}
    told |= {name: None if m.unmeasured else m.value for name, m in found.items()}
    told["unmeasured"] = {name: m.reason for name, m in found.items() if m.unmeasured}
    told["definitions"] = [metric.definition for metric in _EXACT.values()]
    # Under a name of its own, since `params` and the like may be there. What is saved is what
    # the stats hold; a test that sets another dict has not replaced that.
    holder = fixture if fixture.stats is None else fixture.stats
    holder.extra_info.setdefault("nnscale", told)
