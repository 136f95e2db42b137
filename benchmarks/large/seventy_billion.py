"""Counts a decoder of 70.55e9 parameters, 141 GB of weights, on a machine that could not hold it.

    python benchmarks/large/seventy_billion.py

One sequence of 4096 tokens, on shapes alone. Parameters, FLOPs and the bytes of weights at the peak
are compared with the closed form in llama.py. Seconds are of the whole process, from before torch is
imported; memory is the most that was resident. Exits with 1 where a figure is not the closed form,
or where it took more than 60 s or 1.5 GB.
"""

import resource
import sys
import time
from pathlib import Path

TOKENS = 4096
MOST_S = 60.0
MOST_BYTES = 1.5e9
# Kilobytes on Linux, bytes on macOS.
RESIDENT_UNIT = 1 if sys.platform == "darwin" else 1024


def main() -> int:
    """Print each figure beside its closed form or limit; return the exit code."""
    start = time.perf_counter()
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    import pytest_nnscale
    from benchmarks.large.llama import SEVENTY_BILLION, workload

    model, args = workload(SEVENTY_BILLION, TOKENS)
    built = time.perf_counter()
    profile = pytest_nnscale.profile(model, args=args)
    done = time.perf_counter()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RESIDENT_UNIT
    params, flops = SEVENTY_BILLION.params, SEVENTY_BILLION.flops(TOKENS)
    right = True
    for name, found, form in (
        ("params", profile.params, params),
        ("FLOPs", profile.flops, flops),
        ("bytes of weights", dict(profile.held)["weights"], 2 * params),
    ):
        right &= found == form
        print(f"{name:18} {found:>25,}  closed form {form:>25,}")
    print(f"{'bytes at the peak':18} {profile.memory_bytes:>25,}")
    print(f"{profile.method} in {done - built:.2f} s")
    print(f"all in {done - start:.2f} s of {MOST_S:g}")
    print(f"resident at most {resident / 1e9:.3f} GB of {MOST_BYTES / 1e9:g}")
    right &= profile.uncounted == () and profile.method == "traced"
    return int(not right or done - start > MOST_S or resident > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
