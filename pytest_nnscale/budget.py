"""A budget, and the one pure function that judges a measurement by it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pytest_nnscale.measurement import Measurement, Metric

Phase = Literal["inference", "training"]


class Outcome(enum.Enum):
    """What a budget says of a measurement."""

    OVER = "over"
    WITHIN = "within"
    UNMEASURED = "unmeasured"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Budget:
    """An upper limit for one metric, in base units of its dimension.

    `origin` tells where it was written, for messages; `own` whether it stands on the test itself,
    rather than on its class, its module or a glob: an own budget must be measured.
    """

    metric: Metric
    limit: int | float
    phase: Phase = "inference"
    device: str | None = None
    quantile: float | None = None
    trainable: bool = False
    nonzero: bool = False
    origin: str = ""
    own: bool = True

    @property
    def key(self) -> tuple[Metric, Phase, str | None, float | None, bool, bool]:
        """What makes two budgets speak of the same number: of equal keys the closest mark wins."""
        return (
            self.metric,
            self.phase,
            self.device,
            self.quantile,
            self.trainable,
            self.nonzero,
        )

    @property
    def qualifiers(self) -> str:
        """The part of the key that is not the default, as text: "training, p95"."""
        parts: list[str] = []
        if self.phase != "inference":
            parts.append(self.phase)
        if self.device is not None:
            parts.append(self.device)
        if self.quantile is not None:
            parts.append(f"p{100 * self.quantile:g}")
        if self.trainable:
            parts.append("trainable")
        if self.nonzero:
            parts.append("nonzero")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A budget, the measurement it was held against, and the outcome."""

    budget: Budget
    measurement: Measurement
    outcome: Outcome
    call: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as plain JSON types."""
        return {
            "budget": {**asdict(self.budget), "metric": self.budget.metric.value},
            "measurement": self.measurement.to_dict(),
            "outcome": self.outcome.value,
            "call": self.call,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Verdict:
        """Build the verdict that `to_dict` described."""
        budget = dict(data["budget"])
        budget["metric"] = Metric(budget["metric"])
        return cls(
            Budget(**budget),
            Measurement.from_dict(data["measurement"]),
            Outcome(data["outcome"]),
            data["call"],
        )

    def without_details(self) -> Verdict:
        """Return the verdict without samples and shares, small enough to travel far."""
        return replace(self, measurement=self.measurement.without_details())


def judge(budget: Budget, measurement: Measurement) -> Outcome:
    """Hold the interval of a measurement against the limit of a budget.

    OVER is asked first: a lower end above the limit is over, whatever else is unknown. Exactly at
    the limit is WITHIN. No upper end is UNMEASURED; a limit inside the interval is INCONCLUSIVE.
    """
    if budget.metric is not measurement.metric:
        raise ValueError(f"a {budget.metric.value} budget cannot judge {measurement.metric.value}")
    if measurement.lower is not None and measurement.lower > budget.limit:
        return Outcome.OVER
    if measurement.upper is None:
        return Outcome.UNMEASURED
    if measurement.upper <= budget.limit:
        return Outcome.WITHIN
    return Outcome.INCONCLUSIVE
