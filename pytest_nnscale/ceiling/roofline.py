"""The ceilings of this machine, and the time that some work takes under them.

Work takes at least as long as its contractions take at the best FLOP/s, and as its bytes take at the
best bytes/s: the nearer bound is the longer of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pytest_nnscale.ceiling.probes import (
    LARGEST_MOVE,
    SMALLEST_MOVE,
    convolution_rate,
    move_rate,
    product_rate,
)
from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.fingerprint import Fingerprint, take_fingerprint
from pytest_nnscale.store import Store, cache_folder
from pytest_nnscale.timing.clock import Clock
from pytest_nnscale.timing.devices import clock_for

# The version of what is measured.
DEFINITION = "ceiling/2"
DTYPES = ("float32", "bfloat16", "float16", "float64")


def ceilings_of(machine: Fingerprint, folder: Path | None = None) -> Store:
    """Return the ceilings that are stored of a machine, in the user's cache or another folder."""
    return Store(folder or cache_folder(), machine, kind="ceilings", definition=DEFINITION)


class Attainable(NamedTuple):
    """The least seconds that some work takes here: for its contractions, and for its bytes."""

    compute_s: float
    memory_s: float

    @property
    def seconds(self) -> float:
        """The longer of both: neither can be beaten, and they may go on at once."""
        return max(self.compute_s, self.memory_s)


class Roofline:
    """What one device of this machine can do at most; what is not stored is measured when asked for."""

    def __init__(
        self, device: str = "cpu", *, store: Store | None = None, clock: Clock | None = None
    ) -> None:
        self._device = device
        self._store = store or ceilings_of(take_fingerprint(device))
        self._clock = clock
        self._known: dict[str, float] = {}
        self._anew = False

    @property
    def trouble(self) -> str:
        """Why a ceiling could not be stored, or ""."""
        return self._store.trouble

    def flops_per_s(self, kind: str, dtype: str) -> float:
        """Return the best FLOP/s of a kind of contraction; CannotMeasure for a dtype without one."""
        if dtype not in DTYPES:
            raise CannotMeasure(
                f"there is no ceiling for products of {dtype}, only for {', '.join(DTYPES)}",
                remedy="measure its latency instead: max_latency_ms",
            )
        product, convolution = _precisions(dtype, self._device)
        if kind == "convolution" and convolution != product:
            probe, run = f"convolution of {dtype} by {convolution}", convolution_rate
        else:
            probe, run = f"product of {dtype} by {product}", product_rate
        return self._rate(probe, lambda clock: run(dtype, device=self._device, clock=clock))

    def bytes_per_s(self, nbytes: int) -> float:
        """Return the best bytes/s for moving about so many, over and over, caches included.

        Measured at the powers of two below and above, of which the faster counts: fewer bytes may fit
        into a faster cache, and beside more of them it tells less what it takes to start an operator.
        """
        below = 1 << max(nbytes, 1).bit_length() - 1
        sizes = {min(max(size, SMALLEST_MOVE), LARGEST_MOVE) for size in (below, 2 * below)}
        return max(map(self._rate_of_moving, sizes))

    def attainable(self, flops: Mapping[Any, int], nbytes: int) -> Attainable:
        """Return the time of some contractions, by their kind and dtype, and of some bytes."""
        compute_s = sum(
            amount / self.flops_per_s(kind, dtype)
            for (kind, dtype), amount in flops.items()
            if amount
        )
        return Attainable(compute_s, nbytes / self.bytes_per_s(nbytes) if nbytes else 0.0)

    def measure_again(self) -> None:
        """Have every ceiling measured once more when it is asked for; the higher one stays."""
        self._anew = True
        self._known.clear()

    def _rate_of_moving(self, size: int) -> float:
        return self._rate(
            f"moving {size} bytes",
            lambda clock: move_rate(size, device=self._device, clock=clock),
        )

    def _rate(self, probe: str, run: Callable[[Clock], float]) -> float:
        if probe not in self._known:
            stored = self._store.recall(probe)
            if stored is None or self._anew:
                self._clock = self._clock or clock_for(self._device)
                try:
                    stored = max(run(self._clock), stored or 0.0)
                except CannotMeasure:
                    if stored is None:
                        raise  # one that was found before still holds
                self._store.remember(probe, stored)
            self._known[probe] = stored
        return self._known[probe]


def _precisions(dtype: str, device: str) -> tuple[str, str]:
    """Return by which arithmetic products and convolutions of a dtype are set to be done."""
    import torch

    if dtype != "float32":
        return dtype, dtype
    backends: Any = torch.backends
    if device.partition(":")[0] == "cuda":
        settings = backends.cuda.matmul, backends.cudnn.conv
    else:
        settings = backends.mkldnn.matmul, backends.mkldnn.conv
    product, convolution = (str(each.fp32_precision).replace("none", "ieee") for each in settings)
    return product, convolution
