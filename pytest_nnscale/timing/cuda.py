"""A clock of CUDA events: how long a device took, with no wait between one call and the next.

Counts: the time from an event before a batch of calls to one after it, in the stream that is current.
What the host does is hidden behind what the device still has to do, as in a loop that runs the
model; where the host is slower than the device, it is the host's time.
Does not count: work in other streams, or on other GPUs, that the call does not wait for.
CannotMeasure says so where there was such work.
Error sources: the tick of half a microsecond, and the two events of a batch. In a loop weights may
stay in the L2 cache: flushed, every call is timed by itself, with the cache cold, and the host gets
ahead of it by as long as the flush takes.
Reference: CUDA Runtime API, cudaEventElapsedTime; triton.testing.do_bench.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.timing.clock import Batch
from pytest_nnscale.timing.events import Driver, TorchDriver

_TICK_S = 0.5e-6
# So many pairs of events wait to be read at most: that they are waited for tells in none of them.
_MOST_PAIRS = 1000
# A device that goes on for longer than this, and this share of a batch, after the last one did work
# that no event saw. Of a batch, not of all: what goes on beside the next ones is seen at the end
# alone, once. A host that is held up in that moment looks the same, but not three times.
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

        CannotMeasure is raised where a device works on after the last event.
        """
        return self.turns_s([Batch(call, calls)] * batches)

    def turns_s(self, turns: Iterable[Batch]) -> list[float]:
        """Return the device's seconds per call of each batch, as `times_s` does, all in one queue."""
        batches = list(turns)
        for _ in range(_TRIES):
            seconds = self._try(batches)
            if seconds is not None:
                return seconds
        raise CannotMeasure(
            "a GPU works on after the call's own stream is done, for a time that no event sees",
            remedy="have the call wait for the streams that it starts, on other GPUs too: "
            "torch.cuda.current_stream().wait_stream(other)",
        )

    def _try(self, batches: Sequence[Batch]) -> list[float] | None:
        """Time some batches once; None where a device went on after the last event."""
        # With a cold cache each call has events of its own, or only the first would be cold.
        parts = [1 if self._wipe is None else calls for _, calls in batches]
        queue = (
            Batch(call, calls // of)
            for (call, calls), of in zip(batches, parts, strict=True)
            for _ in range(of)
        )
        taken: list[float] = []
        while some := [*islice(queue, _MOST_PAIRS)]:
            seconds = self._pairs(some)
            if seconds is None:
                return None
            taken += seconds
        times = iter(taken)
        return [
            sum(islice(times, of)) / calls for (_, calls), of in zip(batches, parts, strict=True)
        ]

    def _pairs(self, batches: Sequence[Batch]) -> list[float] | None:
        driver, events, last = self._driver, self._events, 2 * len(batches) - 1
        # Made beforehand: an event takes longer to make than to record.
        events += [driver.event() for _ in range(last + 1 - len(events))]
        record, wipe = driver.record, self._wipe
        driver.synchronize()
        try:
            if wipe is None:
                # The first batch, too, is asked for while the device has work.
                batches[0].call()
            for place, (call, calls) in enumerate(batches):
                if wipe is not None:
                    wipe()
                record(events[2 * place])
                for _ in range(calls):
                    call()
                record(events[2 * place + 1])
        except BaseException:
            # Nothing stays in the queue behind an error, which is the one that is told.
            with suppress(Exception):
                driver.synchronize()
            raise
        driver.wait(events[last])
        seen_s = driver.now_s()
        driver.synchronize()
        late_s = driver.now_s() - seen_s
        batch_s = driver.elapsed_s(events[0], events[last]) / len(batches)
        if late_s > _LATE_S + _LATE_SHARE * batch_s:
            return None
        return [driver.elapsed_s(events[i], events[i + 1]) for i in range(0, last, 2)]
