"""The table of marks; loaded in every pytest run, so it imports next to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

    from pytest_nnscale.measurement import Metric

PHASES = ("inference", "training")
DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "meta")


class MarkSpec(NamedTuple):
    """One mark: its name, what it limits, and the keywords that only it knows."""

    name: str
    measures: str
    example: str
    meaning: str
    keywords: tuple[str, ...] = ()

    @property
    def metric(self) -> Metric:
        """The metric that the mark limits."""
        from pytest_nnscale.measurement import Metric

        return Metric(self.measures)

    @property
    def help(self) -> str:
        """The line that `pytest --markers` prints."""
        keywords = "".join(f", {word}=" for word in ("phase", "device", *self.keywords))
        return f"{self.name}(limit{keywords}): {self.meaning}; for example {self.example}."


MARKS = (
    MarkSpec(
        "max_params",
        "params",
        '@pytest.mark.max_params("25.6M")',
        "fail when the models called have more parameters, shared ones once"
        " (trainable=True: only those that need gradients; nonzero=True: pruned ones not)",
        ("trainable", "nonzero"),
    ),
    MarkSpec(
        "max_flops",
        "flops",
        '@pytest.mark.max_flops("8.2 GFLOP")',
        "fail when the test does more contraction work, 1 multiply-accumulate = 2 FLOP",
    ),
    MarkSpec(
        "max_macs",
        "macs",
        '@pytest.mark.max_macs("4.1 GMAC")',
        "fail when the test does more multiply-accumulates, half of the FLOPs",
    ),
    MarkSpec(
        "max_size_mb",
        "size",
        "@pytest.mark.max_size_mb(102.5)",
        "fail when parameters and buffers take more megabytes (10^6) as stored",
    ),
    MarkSpec(
        "max_memory_mb",
        "memory",
        '@pytest.mark.max_memory_mb("200 MiB")',
        "fail when the peak of live tensor bytes is higher, weights and inputs included",
    ),
    MarkSpec(
        "max_kernels",
        "kernels",
        "@pytest.mark.max_kernels(200)",
        "fail when more operators that compute something are dispatched",
    ),
    MarkSpec(
        "max_latency_ms",
        "latency",
        "@pytest.mark.max_latency_ms(80)",
        "fail when one call surely takes longer, the median unless quantile= says otherwise"
        " (relative_to=a callable or another test: the limit is a multiple of its time)",
        ("quantile", "relative_to"),
    ),
    MarkSpec(
        "max_energy_j",
        "energy",
        "@pytest.mark.max_energy_j(3)",
        "fail when one call surely takes more joules, all counters of the device together",
    ),
    MarkSpec(
        "min_efficiency",
        "efficiency",
        "@pytest.mark.min_efficiency(0.4)",
        "fail when one call surely reaches less of what this machine can do, its FLOP/s or its"
        " bytes/s, whichever is the nearer bound (a roofline)",
    ),
)
PREFIXES = ("max_", "min_")
MARK_OF = {spec.name: spec for spec in MARKS}
MARK_FOR = {spec.measures: spec.name for spec in MARKS}
# A latency that is held against another one; without a mark it is nnscale.compare.
MARK_FOR_RATIO = "max_latency_ms"


def near_miss(name: str) -> str | None:
    """Return the mark of ours that a mark of this name was probably meant to be, or None.

    For marks that nobody has registered: another plugin's `max_size` is no mistake.
    """
    prefix = name[:4]
    if name in MARK_OF or name == prefix or prefix not in PREFIXES:
        return None
    # With the prefix itself, so that no more than it is taken for what all have in common.
    return close_to(name, [prefix, *(known for known in MARK_OF if known.startswith(prefix))])


def close_to(name: str, valid: Iterable[str]) -> str | None:
    """Return the valid name that an unknown one probably was meant to be, or None."""
    from difflib import get_close_matches
    from itertools import takewhile

    names = [*valid]
    # What all have in common says nothing of how close they are.
    letters = zip(name, *names, strict=False)
    start = len([*takewhile(lambda same: len({*same}) == 1, letters)])
    stems = {known[start:].lower(): known for known in names}
    found = get_close_matches(name[start:].lower(), stems, n=1, cutoff=0.7)
    return stems[found[0]] if found else None


def has_any(item: pytest.Item) -> bool:
    """Tell whether a mark of ours, or one that may have been meant so, stands on a test or above."""
    return any(
        mark.name.startswith(PREFIXES) for node in item.listchain() for mark in node.own_markers
    )


def own_marks(item: pytest.Item) -> int:
    """Count the marks of ours on the test itself, its parametrisation included."""
    return sum(mark.name in MARK_OF for mark in item.own_markers)
