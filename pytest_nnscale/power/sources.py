"""The sources of joules: which counters a device of this machine has, or why it has none."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import NamedTuple

from pytest_nnscale.errors import CannotMeasure, NothingThere
from pytest_nnscale.power.counter import EnergyCounter
from pytest_nnscale.power.wanted import Wanted

Counters = tuple[EnergyCounter, ...]


class Finding(NamedTuple):
    """What looking for one source came to: counters, or why there are none and what to do."""

    source: str
    device: str
    counters: Counters
    reason: str = ""
    remedy: str = ""


def find_counters(device: str, wanted: Wanted) -> Counters:
    """Return the counters of a device; CannotMeasure says for each source why there is none.

    Of the whole machine where that is wanted: the CPU's beside the GPU's, and a source that was named
    is that of the one it counts. It is NothingThere where this machine has none and no source was
    named: who names one says that it is there.
    """
    whole = wanted.scope == "machine" and _kind(device) != "cpu"
    devices = (device, "cpu") if whole else (device,)
    counts = _COUNTS_ONLY.get(wanted.source)
    if counts is not None and counts not in map(_kind, devices):
        raise CannotMeasure(
            f"nnscale_energy_source={wanted.source} counts joules of {counts} devices alone, and this "
            f"runs on {device}",
            remedy="let the device choose its source: nnscale_energy_source=auto",
        )
    found: Counters = ()
    for each in devices:
        fits = counts in (None, _kind(each))
        found += _counters_of(each, wanted if fits else wanted._replace(source="auto"))
    return found


def look_around(wanted: Wanted, gpus: int) -> tuple[Finding, ...]:
    """Look for every source of the CPU and of some GPUs, for a list."""
    looked = [_look("rapl", "cpu", wanted)]
    looked += [_look("nvml", f"cuda:{n}", wanted) for n in range(gpus)] or [
        _look("nvml", "cuda", wanted)
    ]
    devices = ("cpu", "mps", *([f"cuda:{n}" for n in range(gpus)] or ["cuda"]))
    looked += [_look("zeus", device, wanted) for device in devices]
    return tuple(looked)


def _look(source: str, device: str, wanted: Wanted) -> Finding:
    try:
        return Finding(source, device, _SOURCES[source](device, wanted))
    except CannotMeasure as error:
        return Finding(source, device, (), error.reason, error.remedy)


def _counters_of(device: str, wanted: Wanted) -> Counters:
    if wanted.source != "auto":
        try:
            return _SOURCES[wanted.source](device, wanted)
        except NothingThere as error:
            asked = f"nnscale_energy_source={wanted.source} was asked for: {error.reason}"
            raise CannotMeasure(asked, remedy=error.remedy) from error
    first = _FIRST.get(_kind(device))
    failed = None
    if first is not None:
        try:
            return _SOURCES[first](device, wanted)
        except CannotMeasure as error:
            failed = error
    if importlib.util.find_spec("zeus") is not None:
        try:
            return _zeus(device, wanted)
        except CannotMeasure as error:
            failed = _both(failed, error)
    raise failed or NothingThere(
        f"no energy counter of {_kind(device)} devices is known here",
        remedy="pip install 'pytest-nnscale[zeus]', which knows those of AMD, Apple and Jetson",
    )


def _both(first: CannotMeasure | None, second: CannotMeasure) -> CannotMeasure:
    if first is None:
        return second
    fault = not (isinstance(first, NothingThere) and isinstance(second, NothingThere))
    kind = CannotMeasure if fault else NothingThere
    both = kind(f"{first.reason}; {second.reason}", remedy=first.remedy)
    both.__cause__ = first
    return both


def _nvml(device: str, _wanted: Wanted) -> Counters:
    from pytest_nnscale.power.nvml_energy import find_nvml

    return find_nvml(device)


def _rapl(_device: str, wanted: Wanted) -> Counters:
    from pytest_nnscale.power.rapl import find_rapl

    return find_rapl(wanted.powercap_root)


def _zeus(device: str, _wanted: Wanted) -> Counters:
    from pytest_nnscale.power.zeus import find_zeus

    return find_zeus(device)


def _estimate(_device: str, wanted: Wanted) -> Counters:
    from pytest_nnscale.power.estimate import estimate

    return estimate(wanted.watts_per_core)


def _kind(device: str) -> str:
    return device.partition(":")[0]


_FIRST = {"cpu": "rapl", "cuda": "nvml"}
_COUNTS_ONLY = {"nvml": "cuda", "rapl": "cpu", "estimate": "cpu"}
_SOURCES: dict[str, Callable[[str, Wanted], Counters]] = {
    "nvml": _nvml,
    "rapl": _rapl,
    "zeus": _zeus,
    "estimate": _estimate,
}
