"""A clock of CUDA events: how long a device took, with no wait between one call and the next.

Counts: the time from an event before a batch of calls to one after it, in the stream that is current.
What the host does is hidden behind what the device still has to do, as in a loop that runs the
model; where the host is slower than the device, it is the host's time.
Does not count: work in other streams that the call does not wait for. CannotMeasure says so where
there was such work.
Error sources: the tick of half a microsecond, and the two events of a batch. In a loop weights may
stay in the L2 cache: flushed, every call is timed by itself, with the cache cold, and the host gets
ahead of it by as long as the flush takes.
Reference: CUDA Runtime API, cudaEventElapsedTime; triton.testing.do_bench.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.timing.events import Driver, TorchDriver

_TICK_S = 0.5e-6
# So many pairs of events wait to be read at most: that they are waited for tells in none of them.
_MOST_PAIRS = 1000
# A device that goes on for longer than this, and than this share of what the events saw, did work
# that they did not see. A host that is held up in that moment looks the same, but not three times.
_LATE_S, _LATE_SHARE, _TRIES = 0.2e-3, 0.05, 3


class CudaClock:
    """The time of a CUDA device, taken by events; `flush` empties the L2 cache before each call."""

    method = "CUDA events"

    def __init__(
        self, device: str = "cuda", *, flush: bool = False, driver: Driver | None = None
    ) -> None:
        self.resolution_s = _TICK_S
        self._driver: Driver = TorchDriver(device) if driver is None else driver
        self._events: list[Any] = []
        self._wipe: Callable[[], object] | None = None
        if flush:
            if not self._driver.l2_bytes:
                raise CannotMeasure(
                    f"torch does not know how large the L2 cache of {device} is",
                    remedy="leave it as it is: --nnscale-flush-l2=no",
                )
            # Twice its size: what a cache throws out first is not known.
            self._wipe = self._driver.scratch(2 * self._driver.l2_bytes)

    def now_s(self) -> float:
        """Return the host's seconds, with the device's queue empty."""
        self._driver.synchronize()
        return self._driver.now_s()

    def times_s(self, call: Callable[[], object], *, calls: int, batches: int) -> list[float]:
        """Return the device's seconds per call of each batch; errors of a call pass through.

        CannotMeasure is raised where the device works on after the last event.
        """
        for _ in range(_TRIES):
            seconds = self._try(call, calls, batches)
            if seconds is not None:
                return seconds
        raise CannotMeasure(
            "the device works on after the call's own stream is done, for a time that no event sees",
            remedy="have the call wait for the streams that it starts: "
            "torch.cuda.current_stream().wait_stream(other)",
        )

    def _try(self, call: Callable[[], object], calls: int, batches: int) -> list[float] | None:
        """Time some batches once; None where the device went on after the last event."""
        # With a cold cache each call has events of its own, or only the first would be cold.
        each, of = (calls, 1) if self._wipe is None else (1, calls)
        taken: list[float] = []
        while len(taken) < batches * of:
            some = self._pairs(call, each, min(batches * of - len(taken), _MOST_PAIRS))
            if some is None:
                return None
            taken += some
        return [sum(taken[i : i + of]) / calls for i in range(0, len(taken), of)]

    def _pairs(self, call: Callable[[], object], calls: int, pairs: int) -> list[float] | None:
        driver, events = self._driver, self._events
        # Made beforehand: an event takes longer to make than to record.
        events += [driver.event() for _ in range(2 * pairs - len(events))]
        record, wipe = driver.record, self._wipe
        driver.synchronize()
        try:
            if calls > 1:
                # Short ones: the first batch, too, is asked for while the device has work.
                call()
            for place in range(0, 2 * pairs, 2):
                if wipe is not None:
                    wipe()
                record(events[place])
                for _ in range(calls):
                    call()
                record(events[place + 1])
        except BaseException:
            # Nothing stays in the queue behind an error, which is the one that is told.
            with suppress(Exception):
                driver.synchronize()
            raise
        driver.wait(events[2 * pairs - 1])
        seen_s = driver.now_s()
        driver.synchronize()
        late_s = driver.now_s() - seen_s
        if late_s > _LATE_S + _LATE_SHARE * driver.elapsed_s(events[0], events[2 * pairs - 1]):
            return None
        return [driver.elapsed_s(events[i], events[i + 1]) for i in range(0, 2 * pairs, 2)]
