"""What else is known of a time that was taken: notes that stand beside it, whoever took it."""

from __future__ import annotations

from pytest_nnscale.timing.clock import Clock, overhead_s
from pytest_nnscale.timing.denormals import are_flushed
from pytest_nnscale.units import SECONDS, format_quantity

_TELLING_OVERHEAD = 0.001


def threads() -> str:
    """Say with how many threads torch computes."""
    import torch

    count = torch.get_num_threads()
    return f"{count} thread{'s' if count > 1 else ''}"


def threads_since(before: str) -> str:
    """Say with how many threads torch computes, and with how many it did before."""
    now = threads()
    return before if now == before else f"{before}, later {now}"


def overhead(clock: Clock, calls: int, each_s: float) -> tuple[str, ...]:
    """Say what the reading of the clock takes, where it takes more than a thousandth of a call."""
    taken_s = overhead_s(clock, calls)
    if taken_s <= _TELLING_OVERHEAD * each_s:
        return ()
    return (f"timing takes {format_quantity(taken_s, SECONDS)} of each call",)


def denormals(denormal: bool | None) -> tuple[str, ...]:
    """Say of an output with denormal numbers what they do to its time."""
    if not denormal:
        return ()
    if are_flushed():
        return ("its output holds denormal numbers, which this thread takes for zero",)
    return (
        "its output holds denormal numbers, which processors are slow with: "
        "torch.set_flush_denormal(True)",
    )
