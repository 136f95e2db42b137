"""The short runs that find a ceiling: products and convolutions for FLOP/s, moved bytes for bytes/s.

The best of many short batches counts: what holds a run up is not the machine, and a ceiling that is
too low would make every efficiency too high. So on a CPU one batch at least must have run without
being put aside for another process, and on a GPU while it did not throttle: where none did, there is
no ceiling. Source of the idea: S. Williams, A. Waterman and D. Patterson, "Roofline: an insightful visual performance model", CACM 52 (4), 2009; that memory has a
ceiling for each size of what is moved, since caches are faster: A. Ilic, F. Pratas and L. Sousa,
"Cache-aware Roofline model", IEEE CAL 13 (1), 2014.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.timing.clock import Clock
from pytest_nnscale.timing.conditions import conditions

if TYPE_CHECKING:
    import torch

# Products grow until one takes this long, or is this large; by then they are no faster.
_LONG_S, _SMALLEST, _LARGEST = 0.002, 256, 8192
# Short batches are seldom interrupted; of a GPU some are asked for at once, so that none waits for it.
_BATCH_S, _AT_ONCE = 50e-6, 5
_ENOUGH_S, _PATIENCE_S, _LEAST_ROUNDS = 0.2, 3.0, 3
SMALLEST_MOVE, LARGEST_MOVE = 1 << 20, 1 << 28


def product_rate(dtype: str, *, device: str, clock: Clock) -> float:
    """Return the FLOP/s of the fastest product of square matrices.

    CannotMeasure is raised where the device has no product of that dtype, or is too busy.
    """
    import torch

    def product(size: int) -> Callable[[], object]:
        left, right = (_drawn((size, size), dtype, device, seed) for seed in (1, 2))
        out = torch.empty_like(left)
        return lambda: torch.mm(left, right, out=out)

    return _fastest(product, dtype, device, clock)


def convolution_rate(dtype: str, *, device: str, clock: Clock) -> float:
    """Return the FLOP/s of the fastest convolution by single pixels, which is a product of matrices.

    For where convolutions have other settings for their precision than products. Larger kernels have
    algorithms that do less than what is counted.
    """
    import torch

    def convolution(size: int) -> Callable[[], object]:
        pixels = _drawn((size // 256, size, 16, 16), dtype, device, 1)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        weight = _drawn((size, size, 1, 1), dtype, device, 2)
        return lambda: torch.conv2d(pixels, weight)

    return _fastest(convolution, dtype, device, clock)


def move_rate(nbytes: int, *, device: str, clock: Clock) -> float:
    """Return the bytes/s at which that many can be moved, over and over: copied, or read and summed.

    A copy reads one half and writes the other. It may wait for what it writes to be read first, which
    a sum does not: the faster of both counts.
    """
    import torch

    words = torch.ones(nbytes // 4, dtype=torch.float32, device=device)
    half = words.numel() // 2
    source, target = words[:half], words[half : 2 * half]
    with torch.no_grad():
        best_s = min(
            _best_s(call, clock, device)
            for call in (lambda: target.copy_(source), lambda: words.sum())
        )
    return nbytes / best_s


def _fastest(
    make: Callable[[int], Callable[[], object]], dtype: str, device: str, clock: Clock
) -> float:
    """Return the FLOP/s of the fastest of some calls that are products of square matrices."""
    import torch

    best = 0.0
    try:
        with torch.no_grad():
            for size in _sizes():
                taken_s = _best_s(make(size), clock, device)
                best = max(best, 2 * size**3 / taken_s)
                if taken_s > _LONG_S:
                    break
    except (RuntimeError, NotImplementedError, TypeError) as error:
        if not best:
            first, *_ = str(error).splitlines() or [type(error).__name__]
            raise CannotMeasure(
                f"no product of {dtype} runs on {device}: {first}",
                remedy="measure its latency instead: max_latency_ms",
            ) from error
        # The next larger did not fit into memory.
    return best


def _sizes() -> Iterator[int]:
    size = _SMALLEST
    while size <= _LARGEST:
        yield size
        size *= 2


def _best_s(call: Callable[[], object], clock: Clock, device: str) -> float:
    """Return the seconds of a call in the best of many batches, once it is warm.

    CannotMeasure is raised where every single batch was held up by other processes, or throttled.
    """
    on_cpu = device.partition(":")[0] == "cpu"
    once_s = max(min(clock.times_s(call, calls=1, batches=3)), clock.resolution_s)
    calls = max(1, math.ceil(_BATCH_S / once_s))
    best_s, clean, rounds, begun_s = math.inf, False, 0, clock.now_s()
    with conditions(device) as watch:
        throttled = watch.look()
        while True:
            before = held_up() if on_cpu else 0
            times_s = clock.times_s(call, calls=calls, batches=1 if on_cpu else _AT_ONCE)
            calm = not on_cpu or held_up() == before
            # As it was at the end of the batch before, and since.
            at_first, throttled = throttled, watch.look()
            clean = clean or (calm and not at_first and not throttled)
            best_s, rounds = min(best_s, *times_s), rounds + 1
            spent_s = clock.now_s() - begun_s
            if clean and spent_s >= _ENOUGH_S and rounds >= _LEAST_ROUNDS:
                return max(best_s, clock.resolution_s / calls)
            if spent_s >= _PATIENCE_S and not clean:
                raise _hindered(throttled or at_first, watch.remedy, rounds)


def _hindered(throttled: str, remedy: str, rounds: int) -> CannotMeasure:
    if throttled:
        return CannotMeasure(f"{throttled} whenever it was to show what it can do", remedy=remedy)
    return CannotMeasure(
        "the machine was too busy to find out what it can do: other processes held up every "
        f"one of {rounds} tries",
        remedy="run it while nothing else runs; what is found then is kept",
    )


def held_up() -> int:
    """Return how often threads of this process were put aside for others; 0 where nobody counts."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _drawn(shape: tuple[int, ...], dtype: str, device: str, seed: int) -> torch.Tensor:
    """Draw numbers from a generator of their own: with zeros a GPU needs less power, and is faster."""
    import torch

    # A default device that somebody has set is another one than the generator's.
    drawn = torch.rand(shape, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
    return drawn.to(device=device, dtype=getattr(torch, dtype))
