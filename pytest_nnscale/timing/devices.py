"""Which clock a device has."""

from __future__ import annotations

from pytest_nnscale.timing.clock import Clock, WallClock


def clock_for(device: str = "cpu", *, flush: bool = False) -> Clock:
    """Return the clock of a device: events on CUDA, the wall's elsewhere.

    `flush` empties the L2 cache of a GPU before each call, and says nothing elsewhere.
    CannotMeasure is raised where that cannot be done.
    """
    if device.partition(":")[0] == "cuda":
        from pytest_nnscale.timing.cuda import CudaClock

        return CudaClock(device, flush=flush)
    return WallClock(device)
