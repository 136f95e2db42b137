"""What was measured: a value with its interval, its source and who holds most of it."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from pytest_nnscale.units import (
    BYTES,
    COUNT,
    FLOP,
    FRACTION,
    JOULES,
    MAC,
    RATIO,
    SECONDS,
    Dimension,
)


class Metric(enum.Enum):
    """A number that this package can measure; its value is the name used in JSON and options."""

    PARAMS = "params"
    FLOPS = "flops"
    MACS = "macs"
    SIZE = "size"
    MEMORY = "memory"
    KERNELS = "kernels"
    LATENCY = "latency"
    ENERGY = "energy"
    EFFICIENCY = "efficiency"
    RATIO = "ratio"

    @property
    def dimension(self) -> Dimension:
        """The dimension that amounts of this metric have."""
        return _DIMENSIONS[self]

    @property
    def sampled(self) -> bool:
        """Whether the metric is noisy and comes with an interval, rather than counted exactly."""
        return self in (Metric.LATENCY, Metric.ENERGY, Metric.EFFICIENCY, Metric.RATIO)

    @property
    def more_is_better(self) -> bool:
        """Whether a budget for it is the least that has to be reached, not the most allowed."""
        return self is Metric.EFFICIENCY

    @property
    def structural(self) -> bool:
        """Whether the metric is a property of the model alone, with nothing run."""
        return self in (Metric.PARAMS, Metric.SIZE)

    @property
    def definition(self) -> str:
        """The version of what is measured; numbers of different definitions do not compare."""
        return f"{self.value}/1"


_DIMENSIONS = {
    Metric.PARAMS: COUNT,
    Metric.FLOPS: FLOP,
    Metric.MACS: MAC,
    Metric.SIZE: BYTES,
    Metric.MEMORY: BYTES,
    Metric.KERNELS: COUNT,
    Metric.LATENCY: SECONDS,
    Metric.ENERGY: JOULES,
    Metric.EFFICIENCY: FRACTION,
    Metric.RATIO: RATIO,
}


class Share(NamedTuple):
    """How much of a measurement one module holds: by itself, and with all its submodules."""

    path: str
    type: str
    own: int | float
    total: int | float


class Deferred(Sequence[Share]):
    """Shares that are made when they are first asked for: most never are."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], tuple[Share, ...]]) -> None:
        self._make = make
        self._made: tuple[Share, ...] | None = None

    def _all(self) -> tuple[Share, ...]:
        if self._made is None:
            self._made = self._make()
        return self._made

    def __len__(self) -> int:
        return len(self._all())

    def __getitem__(self, place: Any) -> Any:
        return self._all()[place]

    def __eq__(self, other: object) -> bool:
        return self._all() == (other._all() if isinstance(other, Deferred) else other)

    def __hash__(self) -> int:
        return hash(self._all())

    def __reduce__(self) -> Any:
        return tuple, (self._all(),)

    def __deepcopy__(self, _memo: object) -> tuple[Share, ...]:
        return self._all()


@dataclass(frozen=True, slots=True)
class Measurement:
    """A value in base units with the interval that is known to hold the truth.

    An exact count has `lower == upper == value`. A count with an unknown operator in it has no
    `upper`: it is a lower bound. Nothing measured at all has neither end, and says why in
    `reason` and what to do in `remedy`; `missing` then names what this machine lacks ("energy",
    "cuda"), where that is the reason. `samples` are raw; `method` says how the value came about
    ("traced", "executed", "state", a clock or a counter), `subject` what it is a measurement of.
    `disturbed` says what makes the interval less than sure, such as a GPU that throttled;
    `estimated` is true of what was not measured but worked out from something else.
    """

    metric: Metric
    value: int | float | None
    lower: int | float | None
    upper: int | float | None
    method: str = ""
    subject: str = ""
    samples: tuple[float, ...] = ()
    shares: Sequence[Share] = ()
    notes: tuple[str, ...] = ()
    reason: str = ""
    remedy: str = ""
    missing: str = ""
    disturbed: str = ""
    estimated: bool = False

    @classmethod
    def exact(cls, metric: Metric, value: int, **details: Any) -> Measurement:
        """Return a measurement whose interval is the value itself."""
        return cls(metric, value, value, value, **details)

    @classmethod
    def at_least(cls, metric: Metric, value: int, *, reason: str, **details: Any) -> Measurement:
        """Return a lower bound: the truth is `value` or anything above it."""
        return cls(metric, value, value, None, reason=reason, **details)

    @classmethod
    def nothing(cls, metric: Metric, *, reason: str, **details: Any) -> Measurement:
        """Return the measurement of a meter that could not measure, with its reason."""
        return cls(metric, None, None, None, reason=reason, **details)

    @property
    def unmeasured(self) -> bool:
        """Whether the truth has no known upper end."""
        return self.upper is None

    def without_details(self) -> Measurement:
        """Return the same numbers without samples and shares, small enough to travel far."""
        return replace(self, samples=(), shares=())

    def to_json(self) -> str:
        """Return the measurement as JSON text; `from_json` is its inverse."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the measurement as plain JSON types, with the version of its definition."""
        return {
            **asdict(replace(self, shares=())),
            "shares": [share._asdict() for share in self.shares],
            "metric": self.metric.value,
            "definition": self.metric.definition,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measurement:
        """Build the measurement that `to_dict` described."""
        fields = {key: value for key, value in data.items() if key != "definition"}
        fields["metric"] = Metric(fields["metric"])
        fields["shares"] = tuple(Share(**share) for share in fields.get("shares", ()))
        for name in ("samples", "notes"):
            fields[name] = tuple(fields.get(name, ()))
        return cls(**fields)

    @classmethod
    def from_json(cls, text: str) -> Measurement:
        """Build the measurement that `to_json` wrote."""
        return cls.from_dict(json.loads(text))
