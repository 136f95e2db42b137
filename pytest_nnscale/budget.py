"""A budget, and the one pure function that judges a measurement by it."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pytest_nnscale.measurement import Measurement, Metric

Phase = Literal["inference", "training"]

TOO_WIDE = 0.2  # of the limit, on either side


class Outcome(enum.Enum):
    """What a budget says of a measurement; OVER is beyond the limit, on whichever side is bad."""

    OVER = "over"
    WITHIN = "within"
    UNMEASURED = "unmeasured"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit for one metric, in base units: the most that is allowed, or the least where more is better.

    `relative_to` names what a ratio is the ratio to; `reference` tells callables of one name apart,
    within a process, and is 0 for a test. `origin` tells where it was written, for messages; `own` whether it stands on the test itself,
    rather than on its class, its module or a glob: an own budget must be measured.
    """

    metric: Metric
    limit: int | float
    phase: Phase = "inference"
    device: str | None = None
    quantile: float | None = None
    trainable: bool = False
    nonzero: bool = False
    relative_to: str = ""
    reference: int = 0
    origin: str = ""
    own: bool = True

    @property
    def key(self) -> tuple[Metric, Phase, str | None, float | None, bool, bool, str, int]:
        """What makes two budgets speak of the same number: of equal keys the closest mark wins."""
        return (
            self.metric,
            self.phase,
            self.device,
            self.quantile,
            self.trainable,
            self.nonzero,
            self.relative_to,
            self.reference,
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
        if self.relative_to:
            parts.append(f"relative to {self.relative_to}")
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
        budget = {**asdict(self.budget), "metric": self.budget.metric.value}
        del budget["reference"]  # it means nothing elsewhere
        return {
            "budget": budget,
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
    the limit is WITHIN. No upper end is UNMEASURED; a limit inside the interval is INCONCLUSIVE,
    but UNMEASURED where the interval reaches further from it than a fifth, on either side, or
    without end: that says nothing. What was disturbed is INCONCLUSIVE at best. Where more is better the same holds
    with both ends exchanged: OVER is an upper end below the limit.
    """
    if budget.metric is not measurement.metric:
        raise ValueError(f"a {budget.metric.value} budget cannot judge {measurement.metric.value}")
    lower, upper, limit = measurement.lower, measurement.upper, budget.limit
    if budget.metric.more_is_better:
        # The least that must be reached is the most that is allowed, seen in a mirror.
        lower, upper, limit = _mirrored(upper), _mirrored(lower), -limit
    decided = Outcome.INCONCLUSIVE if measurement.disturbed else None
    if lower is not None and lower > limit:
        return decided or Outcome.OVER
    if upper is None:
        return Outcome.UNMEASURED
    if upper <= limit:
        return decided or Outcome.WITHIN
    below = math.inf if lower is None else limit - lower
    too_wide = max(upper - limit, below) > TOO_WIDE * abs(limit)
    return Outcome.UNMEASURED if too_wide else Outcome.INCONCLUSIVE


def _mirrored(end: int | float | None) -> int | float | None:
    return None if end is None else -end
