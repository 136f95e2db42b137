"""The first calls, which load, compile and fill caches, until a call takes what it will take."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pytest_nnscale.timing.clock import Clock
from pytest_nnscale.timing.denormals import any_denormal

# Of the time that there is.
WARM_UP_SHARE = 0.2
# Calls that differ by less than this are alike.
_ALIKE = 0.1


class WarmUp(NamedTuple):
    """What a call takes by now, in seconds, how many there were, and whether they came to agree.

    `denormal` says whether the output of the last holds denormal numbers, None where it has nothing
    to look at.
    """

    estimate_s: float
    calls: int
    steady: bool
    denormal: bool | None


def warm_up(call: Callable[[], object], clock: Clock, max_time_s: float) -> WarmUp:
    """Call until three in a row agree within a tenth, or time is up.

    The first call, which may compile, tells nothing of the others: its time does not count, and it is
    never the estimate. When time is up there are more calls as long as each is faster than the last.
    """
    taken: list[float] = []
    calls, first_s = 0, clock.now_s()
    begun_s = first_s
    while True:
        start_s = clock.now_s()
        output = call()
        end_s = clock.now_s()
        taken, calls = [*taken[-2:], end_s - start_s], calls + 1
        if calls == 1:
            begun_s = end_s
        steady = len(taken) == 3 and max(taken) <= (1 + _ALIKE) * min(taken)
        falling = calls == 1 or taken[-1] < (1 - _ALIKE) * taken[-2]
        if steady or end_s == first_s or (end_s - begun_s >= max_time_s and not falling):
            break
        del output  # or the next call's would be there beside it, with all that hangs on it
    # Of the first few, those after the first.
    told = taken if steady or calls > len(taken) else taken[1:] or taken
    return WarmUp(sorted(told)[(len(told) - 1) // 2], calls, steady, any_denormal(output))
