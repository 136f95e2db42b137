"""Why a test may be slower: what is counted exactly, where it changed, and in which module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pytest_nnscale.measurement import Measurement, Metric, Share

# Below a module that holds this share of a change it is looked for further down.
_MOST_OF_IT = 0.8
_NAMED = 3


class Part(NamedTuple):
    """A module and what it holds in both trees, with all below it."""

    path: str
    base: int | float
    head: int | float


class Cause(NamedTuple):
    """An exact metric that differs between the trees, and the modules that make the difference.

    One module where most of the difference is within it, else those with the largest differences.
    """

    metric: Metric
    base: int | float
    head: int | float
    parts: tuple[Part, ...]


def find_causes(base: Sequence[Measurement], head: Sequence[Measurement]) -> tuple[Cause, ...]:
    """Return the exact metrics that differ, in the order in which they were measured.

    Metrics that are not fully known on both sides are left out: of a lower bound no change is known.
    """
    before = {found.metric: found for found in base if not found.unmeasured}
    causes = []
    for found in head:
        other = before.get(found.metric)
        if other is None or found.unmeasured or found.value is None or other.value is None:
            continue
        if found.value != other.value:
            parts = _parts(_own(other.shares), _own(found.shares))
            causes.append(Cause(found.metric, other.value, found.value, parts))
    return tuple(causes)


def _own(shares: Sequence[Share]) -> dict[str, int | float]:
    return {share.path: share.own for share in shares}


def _parts(base: Mapping[str, int | float], head: Mapping[str, int | float]) -> tuple[Part, ...]:
    """Descend from the whole model for as long as one module holds most of the change."""
    here = ""
    while True:
        below = sorted(_children(here, base, head), key=lambda part: -abs(part.head - part.base))
        if not below:
            break
        largest = below[0]
        whole = _held(here, base, head)
        change = abs(whole.head - whole.base)
        if not change or abs(largest.head - largest.base) < _MOST_OF_IT * change:
            break
        here = largest.path
    if here:
        return (_held(here, base, head),)
    return tuple(part for part in below[:_NAMED] if part.head != part.base)


def _children(
    path: str, base: Mapping[str, int | float], head: Mapping[str, int | float]
) -> list[Part]:
    prefix = f"{path}." if path else ""
    names = {
        other[len(prefix) :].partition(".")[0]
        for other in (*base, *head)
        if other and other.startswith(prefix)
    }
    return [_held(prefix + name, base, head) for name in sorted(names)]


def _held(path: str, base: Mapping[str, int | float], head: Mapping[str, int | float]) -> Part:
    def total(own: Mapping[str, int | float]) -> int | float:
        return sum(
            amount
            for other, amount in own.items()
            if not path or other == path or other.startswith(f"{path}.")
        )

    return Part(path, total(base), total(head))
