"""A profile: the measured numbers of one workload, and its modules."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters.effort import Effort
from pytest_nnscale.meters.table import measure
from pytest_nnscale.observation import Observation

if TYPE_CHECKING:
    from pytest_nnscale.budget import Phase
    from pytest_nnscale.counting.counter import Count


_USUAL = Effort()


class ModuleRow(NamedTuple):
    """What one module has and does: by itself (`own_`), and with all below it (`total_`).

    None where it was not measured; FLOPs are a lower bound where the row is not `complete`.
    """

    path: str
    type: str
    own_params: int | None
    total_params: int | None
    own_flops: int | None
    total_flops: int | None
    own_memory_bytes: int | None
    total_memory_bytes: int | None
    complete: bool = True


@dataclass(frozen=True)
class Profile:
    """The measured numbers of one workload; its text is a table.

    Exact numbers are ints, and None where they were not measured: without inputs a model has only
    its params and size. `flops` is a lower bound while `uncounted` names an operator. `method` is
    "traced" where shapes were enough and nothing was computed, "executed" where the model ran.
    `held` is `memory_bytes` by what it is: weights, inputs, activations, gradients, optimizer.
    """

    subject: str
    phase: Phase
    measurements: tuple[Measurement, ...]
    uncounted: tuple[str, ...]
    modules: tuple[ModuleRow, ...]
    method: str
    held: tuple[tuple[str, int], ...] = ()

    def measurement(self, metric: Metric | str) -> Measurement:
        """Return one measurement with its interval; KeyError where it was not asked for."""
        wanted = Metric(metric)
        for measurement in self.measurements:
            if measurement.metric is wanted:
                return measurement
        raise KeyError(wanted.value)

    def _whole(self, metric: Metric) -> int | None:
        try:
            value = self.measurement(metric).value
        except KeyError:
            return None
        return None if value is None else int(value)

    def _sampled(self, metric: Metric) -> Measurement | None:
        try:
            return self.measurement(metric)
        except KeyError:
            return None

    @property
    def params(self) -> int | None:
        """Parameters, shared ones once."""
        return self._whole(Metric.PARAMS)

    @property
    def flops(self) -> int | None:
        """Contraction work in FLOP; 1 multiply-accumulate = 2 FLOP."""
        return self._whole(Metric.FLOPS)

    @property
    def macs(self) -> int | None:
        """Contraction work in multiply-accumulates: half of the FLOPs."""
        return self._whole(Metric.MACS)

    @property
    def size_bytes(self) -> int | None:
        """Bytes of parameters and buffers as stored."""
        return self._whole(Metric.SIZE)

    @property
    def memory_bytes(self) -> int | None:
        """Peak of live tensor bytes, weights and inputs included."""
        return self._whole(Metric.MEMORY)

    @property
    def kernels(self) -> int | None:
        """Operators dispatched that compute something."""
        return self._whole(Metric.KERNELS)

    @property
    def latency_s(self) -> Measurement | None:
        """One call in seconds, the median with its interval; None unless asked for."""
        return self._sampled(Metric.LATENCY)

    @property
    def energy_j(self) -> Measurement | None:
        """One call in joules with its interval; None unless asked for."""
        return self._sampled(Metric.ENERGY)

    @property
    def efficiency(self) -> Measurement | None:
        """What a call reaches of this machine's best, as a share; None unless asked for."""
        return self._sampled(Metric.EFFICIENCY)

    def to_json(self) -> str:
        """Return everything but raw samples as JSON text; unknown is null, never zero."""
        return json.dumps(
            {
                "subject": self.subject,
                "phase": self.phase,
                "method": self.method,
                "measurements": {
                    m.metric.value: m.without_details().to_dict() for m in self.measurements
                },
                "uncounted": list(self.uncounted),
                "held": dict(self.held),
                "modules": [row._asdict() for row in self.modules],
            },
            allow_nan=False,
        )

    def __str__(self) -> str:
        from pytest_nnscale.report.table import profile_table

        return profile_table(self)


def profile_of(
    observation: Observation, metrics: Iterable[Metric], effort: Effort = _USUAL
) -> Profile:
    """Measure some metrics of an observation and join them with its module rows."""
    found = tuple(measure(m, observation, phase=observation.phase, effort=effort) for m in metrics)
    order = (observation.tree or observation.inventory.tree).paths
    return assemble(observation.subject, observation.phase, found, observation.count, order)


def assemble(
    subject: str,
    phase: Phase,
    found: tuple[Measurement, ...],
    counted: Count | None,
    order: Sequence[str] = (),
) -> Profile:
    """Join measurements and the module rows of a count into a profile, in the order of the model."""
    params = {s.path: s for m in found if m.metric is Metric.PARAMS for s in m.shares}
    work = {row.path: row for row in counted.modules} if counted else {}
    # A module without a share has none of what was measured; what was not measured is unknown.
    without = (0, 0) if params else (None, None)
    idle = 0 if counted else None
    rows = []
    for path in _in_order(params.keys() | work.keys(), order):
        held, done = params.get(path), work.get(path)
        own, total = held[2:] if held else without
        if done:
            _, kind, own_flops, flops, _, _, own_memory, memory, complete = done
            row = (path, kind, own, total, own_flops, flops, own_memory, memory, complete)
        else:
            kind = held.type if held else ""
            row = (path, kind, own, total, idle, idle, idle, idle, True)  # type: ignore[assignment]
        rows.append(row)
    uncounted = tuple(dict.fromkeys(u.operator for u in counted.uncounted)) if counted else ()
    return Profile(
        subject,
        phase,
        found,
        uncounted,
        tuple(map(ModuleRow._make, rows)),
        counted.method if counted else "state",
        counted.held if counted else (),
    )


def _in_order(paths: Set[str], order: Sequence[str]) -> list[str]:
    """Sort paths by the order of a model's; those that it does not have come after what is above."""
    known = [path for path in order if path in paths]
    if len(known) == len(paths):
        return known
    places = {path: place for place, path in enumerate(("", *order))}
    return sorted(paths, key=lambda path: (_place(path, places), path))


def _place(path: str, places: Mapping[str, int]) -> int:
    """Return the place of a module; one that nobody registered is beside the module above it."""
    place = places.get(path)
    while place is None:
        path = path.rpartition(".")[0]
        place = places.get(path)
    return place
