"""The threads of this process: they come to rest after its turn, before the other side begins.

Those of OpenMP go on spinning after a parallel region, in case there is another: for some milliseconds
in GNU's runtime, for 200 in LLVM's and Intel's. The other side would have to share the cores with them.
"""

from __future__ import annotations

import time

# How often to look, and what share of a core is rest.
_LOOK_S, _IDLE = 1e-3, 0.2
# Longer than any runtime spins. Threads that never rest belong to the user's code, and are waited for
# no more than a few times.
_MOST_S, _MOST_IN_VAIN = 0.5, 3


class Threads:
    """All threads of this process but the one that asks."""

    def __init__(self) -> None:
        self._in_vain = 0

    def come_to_rest(self) -> bool:
        """Wait until none of them runs; False where they do not stop."""
        if self._in_vain >= _MOST_IN_VAIN:
            return False
        until_s = time.perf_counter() + _MOST_S
        while time.perf_counter() < until_s:
            spent_s, at_s = time.process_time(), time.perf_counter()
            time.sleep(_LOOK_S)
            if time.process_time() - spent_s < _IDLE * (time.perf_counter() - at_s):
                self._in_vain = 0
                return True
        self._in_vain += 1
        return False
