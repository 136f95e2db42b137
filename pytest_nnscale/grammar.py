"""A mark's arguments made into a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pytest_nnscale.budget import Budget
from pytest_nnscale.errors import BadBudget, BadQuantity, shown
from pytest_nnscale.marks import DEVICES, PHASES, MarkSpec
from pytest_nnscale.measurement import Metric
from pytest_nnscale.naming import identity_of, reference_name
from pytest_nnscale.units import parse_quantity

# A call in ten thousand: seeing it takes some fifty thousand calls, a rarer one millions.
_LEAST_QUANTILE, _MOST_QUANTILE = 0.0001, 0.9999


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
    relative_to = _relative_to(kwargs)
    metric = Metric.RATIO if relative_to else spec.metric
    try:
        amount = parse_quantity(limit, metric.dimension)
    except BadQuantity as error:
        raise BadBudget(str(error)) from error
    return Budget(
        metric,
        amount,
        phase=_phase(kwargs.get("phase", "inference")),
        device=_device(kwargs.get("device")),
        quantile=_quantile(kwargs.get("quantile")),
        trainable=_flag("trainable", kwargs.get("trainable", False)),
        nonzero=_flag("nonzero", kwargs.get("nonzero", False)),
        relative_to=relative_to,
        reference=identity_of(kwargs["relative_to"]) if callable(kwargs.get("relative_to")) else 0,
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
    if not _LEAST_QUANTILE <= quantile <= _MOST_QUANTILE:
        raise BadBudget(
            f"quantile={shown(quantile)}; to see a call that rare takes too many calls, "
            f"give {_LEAST_QUANTILE} to {_MOST_QUANTILE}"
        )
    # The median said aloud is the median left unsaid: both must have the same key.
    return None if quantile == 0.5 else float(quantile)


def _relative_to(kwargs: Mapping[str, Any]) -> str:
    """Return the name of what a latency is held against, or an empty text."""
    given = kwargs.get("relative_to")
    if given is None:
        return ""
    if not (isinstance(given, str) and given) and not callable(given):
        raise BadBudget(f"relative_to={shown(given)}; it is a callable, or the name of a test")
    if kwargs.get("quantile") is not None:
        raise BadBudget("quantile= with relative_to=; the ratio is that of the medians, drop one")
    if callable(given) and kwargs.get("phase", "inference") != "inference":
        raise BadBudget(
            "relative_to= a callable is for single calls; for a training step name a test"
        )
    return reference_name(given)


def _flag(word: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadBudget(f"{word}={shown(value)}; it is True or False")
    return value
