"""The table of marks, and a mark made into a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_nnscale.budget import Budget
from pytest_nnscale.errors import BadBudget, BadQuantity, shown
from pytest_nnscale.measurement import Metric
from pytest_nnscale.units import parse_quantity

PHASES = ("inference", "training")
DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "meta")


@dataclass(frozen=True, slots=True)
class MarkSpec:
    """One mark: its name, what it limits, and the keywords that only it knows."""

    name: str
    metric: Metric
    example: str
    meaning: str
    keywords: tuple[str, ...] = ()

    @property
    def help(self) -> str:
        """The line that `pytest --markers` prints."""
        keywords = "".join(f", {word}=" for word in ("phase", "device", *self.keywords))
        return f"{self.name}(limit{keywords}): {self.meaning}; for example {self.example}."


MARKS = (
    MarkSpec(
        "max_params",
        Metric.PARAMS,
        '@pytest.mark.max_params("25.6M")',
        "fail when the models called have more parameters, shared ones once"
        " (trainable=True: only those that need gradients)",
        ("trainable",),
    ),
    MarkSpec(
        "max_flops",
        Metric.FLOPS,
        '@pytest.mark.max_flops("8.2 GFLOP")',
        "fail when the test does more contraction work, 1 multiply-accumulate = 2 FLOP",
    ),
    MarkSpec(
        "max_macs",
        Metric.MACS,
        '@pytest.mark.max_macs("4.1 GMAC")',
        "fail when the test does more multiply-accumulates, half of the FLOPs",
    ),
    MarkSpec(
        "max_size_mb",
        Metric.SIZE,
        "@pytest.mark.max_size_mb(102.5)",
        "fail when parameters and buffers take more megabytes (10^6) as stored",
    ),
    MarkSpec(
        "max_memory_mb",
        Metric.MEMORY,
        '@pytest.mark.max_memory_mb("200 MiB")',
        "fail when the peak of live tensor bytes is higher, weights and inputs included",
    ),
    MarkSpec(
        "max_kernels",
        Metric.KERNELS,
        "@pytest.mark.max_kernels(200)",
        "fail when more operators that compute something are dispatched",
    ),
    MarkSpec(
        "max_latency_ms",
        Metric.LATENCY,
        "@pytest.mark.max_latency_ms(80)",
        "fail when one call surely takes longer, the median unless quantile= says otherwise",
        ("quantile",),
    ),
    MarkSpec(
        "max_energy_j",
        Metric.ENERGY,
        "@pytest.mark.max_energy_j(3)",
        "fail when one call surely takes more joules, all counters of the device together",
    ),
)
MARK_OF = {spec.name: spec for spec in MARKS}
MARK_FOR = {spec.metric: spec.name for spec in MARKS}


def parse_mark(
    spec: MarkSpec,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    parametrisation: str | None,
    origin: str,
    own: bool,
) -> Budget:
    """Read a mark's arguments as a budget; BadBudget says what is wrong and how to mend it."""
    if len(args) != 1:
        found = "no limit" if not args else f"{len(args)} positional values"
        raise BadBudget(f"{found}; give one limit: {spec.example}")
    known = ("phase", "device", *spec.keywords)
    unknown = [word for word in kwargs if word not in known]
    if unknown:
        raise BadBudget(f"unknown keyword {unknown[0]!r}; {spec.name} takes {', '.join(known)}")
    limit = args[0]
    if isinstance(limit, Mapping):
        limit = _for_parametrisation(limit, parametrisation)
    try:
        amount = parse_quantity(limit, spec.metric.dimension)
    except BadQuantity as error:
        raise BadBudget(str(error)) from error
    return Budget(
        spec.metric,
        amount,
        phase=_phase(kwargs.get("phase", "inference")),
        device=_device(kwargs.get("device")),
        quantile=_quantile(kwargs.get("quantile")),
        trainable=_trainable(kwargs.get("trainable", False)),
        origin=origin,
        own=own,
    )


def _for_parametrisation(limits: Mapping[Any, Any], parametrisation: str | None) -> Any:
    if parametrisation is None:
        raise BadBudget("a dict of limits, but the test is not parametrised; give one limit")
    if parametrisation not in limits:
        has = ", ".join(shown(key) for key in list(limits)[:5])
        raise BadBudget(f"no limit for id {parametrisation!r} in the dict; it has {has or 'none'}")
    return limits[parametrisation]


def _phase(phase: Any) -> Any:
    # Asked by type first: an array is unequal to a text elementwise.
    if not isinstance(phase, str) or phase not in PHASES:
        raise BadBudget(f"phase={shown(phase)}; it is 'inference' or 'training'")
    return phase


def _device(device: Any) -> str | None:
    if device is None:
        return None
    # A torch.device is known by its name: this room does not import torch.
    text = str(device) if isinstance(device, str) or type(device).__name__ == "device" else ""
    name, colon, index = text.partition(":")
    if name not in DEVICES or (colon and not index.isdecimal()):
        raise BadBudget(
            f"device={shown(device)}; it is one of {', '.join(DEVICES)}, or like 'cuda:0'"
        )
    return text


def _quantile(quantile: Any) -> float | None:
    if quantile is None:
        return None
    if isinstance(quantile, bool) or not isinstance(quantile, int | float):
        raise BadBudget(f"quantile={shown(quantile)}; it is a number between 0 and 1, such as 0.95")
    if not math.isfinite(quantile) or not 0 < quantile < 1:
        raise BadBudget(f"quantile={shown(quantile)}; it lies between 0 and 1, such as 0.95")
    # The median said aloud is the median left unsaid: both must have the same key.
    return None if quantile == 0.5 else float(quantile)


def _trainable(trainable: Any) -> bool:
    if not isinstance(trainable, bool):
        raise BadBudget(f"trainable={shown(trainable)}; it is True or False")
    return trainable
