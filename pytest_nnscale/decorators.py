"""The marks as typed decorators: `from pytest_nnscale import max_params`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from pytest_nnscale.budget import Phase
from pytest_nnscale.errors import BadBudget, shown
from pytest_nnscale.marks import MARK_OF

Limit = int | float | str | Mapping[str, int | float | str]


def max_params(
    limit: Limit,
    *,
    trainable: bool = False,
    nonzero: bool = False,
    phase: Phase = "inference",
    device: str | None = None,
) -> pytest.MarkDecorator:
    """Limit the parameters of the models called; a bare number is a count."""
    only = {"trainable": trainable, "nonzero": nonzero}
    return _mark("max_params", limit, **only, phase=phase, device=device)


def max_flops(
    limit: Limit, *, phase: Phase = "inference", device: str | None = None
) -> pytest.MarkDecorator:
    """Limit the contraction work; a bare number is in FLOP, 1 multiply-accumulate = 2 FLOP."""
    return _mark("max_flops", limit, phase=phase, device=device)


def max_macs(
    limit: Limit, *, phase: Phase = "inference", device: str | None = None
) -> pytest.MarkDecorator:
    """Limit the multiply-accumulates; a bare number is in MAC, half of the FLOPs."""
    return _mark("max_macs", limit, phase=phase, device=device)


def max_size_mb(
    limit: Limit, *, phase: Phase = "inference", device: str | None = None
) -> pytest.MarkDecorator:
    """Limit the stored bytes of parameters and buffers; a bare number is in MB (10^6)."""
    return _mark("max_size_mb", limit, phase=phase, device=device)


def max_memory_mb(
    limit: Limit, *, phase: Phase = "inference", device: str | None = None
) -> pytest.MarkDecorator:
    """Limit the peak of live tensor bytes; a bare number is in MB (10^6)."""
    return _mark("max_memory_mb", limit, phase=phase, device=device)


def max_kernels(
    limit: Limit, *, phase: Phase = "inference", device: str | None = None
) -> pytest.MarkDecorator:
    """Limit the operators dispatched that compute something; a bare number is a count."""
    return _mark("max_kernels", limit, phase=phase, device=device)


def max_latency_ms(
    limit: Limit,
    *,
    quantile: float | None = None,
    relative_to: Callable[..., Any] | str | None = None,
    phase: Phase = "inference",
    device: str | None = None,
) -> pytest.MarkDecorator:
    """Limit the time of one call, its median unless `quantile` is given; a bare number is in ms.

    With `relative_to`, a callable or the name of another test, it is a multiple of its time.
    """
    only = {"quantile": quantile, "relative_to": relative_to}
    return _mark("max_latency_ms", limit, **only, phase=phase, device=device)


def max_energy_j(
    limit: Limit, *, phase: Phase = "inference", device: str | None = None
) -> pytest.MarkDecorator:
    """Limit the energy of one call; a bare number is in joules."""
    return _mark("max_energy_j", limit, phase=phase, device=device)


def min_efficiency(
    limit: Limit, *, phase: Phase = "inference", device: str | None = None
) -> pytest.MarkDecorator:
    """Demand a share of what this machine can do, by its FLOP/s or bytes/s; 0.4 is "40 %"."""
    return _mark("min_efficiency", limit, phase=phase, device=device)


def _mark(name: str, limit: Limit, **keywords: Any) -> pytest.MarkDecorator:
    decorator: Any = getattr(pytest.mark, name)
    if callable(limit):
        # `@max_flops` without a limit, or with the model for one: the name of the test would be
        # bound to a decorator, and pytest would pass over it.
        if getattr(limit, "__name__", "").lower().startswith("test"):
            bare: pytest.MarkDecorator = decorator(limit)  # a mistake like any other: collected
            return bare
        raise BadBudget(f"{name}: {shown(limit)} is no limit; give one: {MARK_OF[name].example}")
    marked: pytest.MarkDecorator = decorator.with_args(limit, **keywords)
    return marked
