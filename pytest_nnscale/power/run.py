"""A run: one measurement of joules under way, what the machine drew before, meanwhile and after."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.power.idle import Idle, idle_watts
from pytest_nnscale.power.load import Load
from pytest_nnscale.power.watch import Watch
from pytest_nnscale.power.window import FEWEST_PIECES, Window, window_of
from pytest_nnscale.units import JOULES, format_quantity, time_to_give

# The share of the joules that may be left unknown by the counter's steps.
QUANTISED = 0.01
# When the interval is looked at, in shares of the time, and the share of the error that each look spends.
_LOOKS = ((0.25, 0.25), (0.5, 0.25), (1.0, 0.5))
# A first call that takes more of the time than this is the only one that warms up.
_WARM_UP_SHARE = 0.05
_IDLE_SHARE, _IDLE_S, _IDLE_UPDATES = 0.1, 0.2, 3
# What a counter may lag behind, before, after and at the start of the work, takes no more than this.
_LAG_SHARE = 0.7
# How often to look at the counters: not so often that looking is more than a part in 200 of the time.
_LOOK_S, _LOOKS_SHARE = 5e-3, 1 / 200


class CallFailed(Exception):
    """The call raised; its cause says what."""


@dataclass
class Run:
    """Calls made and counters looked at, until it is known on which side of a limit the joules lie.

    `now_s` waits for the device of the call. `others` is the mean number of cores that other
    processes used meanwhile, where that is known.
    """

    call: Callable[[], object]
    watches: list[Watch]
    now_s: Callable[[], float]
    pause: Callable[[float], object]
    load: Callable[[], Load] = Load
    idle: list[Idle] = field(default_factory=list)
    others: float | None = None
    call_s: float = 0.0
    looked_s: float = 0.0

    def measure(
        self, limit_j: float | None, error: float, max_time_s: float, *, above_idle: bool
    ) -> Window:
        """Return the window, joules above idle if so asked; CannotMeasure says why there is none.

        CallFailed is raised where the call does.
        """
        if 3 * self._lag_s > _LAG_SHARE * max_time_s:
            raise self._too_late()
        idle_s = min(max(_IDLE_S, _IDLE_UPDATES * self._update_s), max_time_s * _IDLE_SHARE)
        self._rest(idle_s)
        warming_s = self._warm_up(max_time_s)
        load, begun_s = self.load(), self.now_s()
        for_s = max_time_s - 2 * (idle_s + self._lag_s) - warming_s
        window = self._work(limit_j, error, for_s, above_idle=above_idle)
        others_s = load.others_s()
        if others_s is not None:
            self.others = others_s / (self.now_s() - begun_s)
        self._rest(idle_s)
        return self._checked_above_idle(window) if above_idle else window

    @property
    def idle_w(self) -> float:
        """The mean power of the machine before and after."""
        return sum(idle.watts for idle in self.idle) / len(self.idle)

    @property
    def _update_s(self) -> float:
        return max((watch.counter.resolution_s for watch in self.watches), default=0.0)

    @property
    def _lag_s(self) -> float:
        return max((watch.counter.lag_s for watch in self.watches), default=0.0)

    def _rest(self, for_s: float) -> None:
        idle = idle_watts(
            self.watches,
            for_s=for_s,
            every_s=_LOOK_S,
            settle_s=self._lag_s,
            now_s=self.now_s,
            pause=self.pause,
        )
        if idle is not None:
            self.idle.append(idle)

    def _warm_up(self, max_time_s: float) -> float:
        """Call twice, or once where that takes long, and for as long as the counters lag behind.

        Return the seconds that it took.
        """
        begun_s = at_s = self.now_s()
        calls = 0
        while calls < 2 or at_s - begun_s < self._lag_s:
            before_s = at_s
            at_s = self._called(1, 0)
            calls += 1
            self.call_s = at_s - before_s
            if self.call_s > _WARM_UP_SHARE * max_time_s and at_s - begun_s >= self._lag_s:
                break
        for watch in self.watches:
            watch.begin_anew()
        self.looked_s = 0.0
        return at_s - begun_s

    def _work(
        self, limit_j: float | None, error: float, for_s: float, *, above_idle: bool
    ) -> Window:
        """Call until it is known on which side of the limit the joules lie, or the time is over."""
        begun_s, calls, looks = self.now_s(), 0, 0
        at_s, at_once = begun_s, 1
        window = None
        for share, spent in _LOOKS:
            until_s = begun_s + share * for_s
            while at_s < until_s:
                at_s = self._called(at_once, calls := calls + at_once)
                looks += 1
                self.call_s = (at_s - begun_s) / calls
                every_s = max(_LOOK_S, self._update_s / 20, self.looked_s / looks / _LOOKS_SHARE)
                at_once = max(1, int(every_s / self.call_s)) if self.call_s else at_once
            window = self._window(error * spent, at_s - begun_s)
            if window is not None:
                asked = self._above_idle(window) if above_idle and self.idle else window
                if _settles(asked, limit_j):
                    break
        for watch in self.watches:
            watch.check_that_it_moves(self.call_s)
        if window is None:
            raise self._too_few(calls, at_s - begun_s)
        return window

    def _called(self, times: int, calls: int) -> float:
        """Call so often, and look at every counter with the device at rest; return when that was."""
        try:
            for _ in range(times):
                self.call()
            at_s = self.now_s()
        except Exception as error:
            raise CallFailed from error
        for watch in self.watches:
            watch.look(at_s, calls)
        self.looked_s += self.now_s() - at_s
        return at_s

    def _window(self, error: float, lasted_s: float) -> Window | None:
        window = window_of(self.watches, error=error)
        if window is None or not math.isfinite(window.half_j):
            return None
        # What looking took was no part of the calls.
        looked = self.looked_s / lasted_s
        return window._replace(half_j=window.half_j + looked * window.joules)

    def _checked_above_idle(self, window: Window) -> Window:
        if len(self.idle) < 2 or not all(math.isfinite(idle.unsure_w) for idle in self.idle):
            raise CannotMeasure(
                "the idle power is not known: the counter did not move often enough while "
                "nothing was done",
                remedy="give it longer: --nnscale-max-time; or --nnscale-energy=total",
            )
        above = self._above_idle(window)
        if above.joules <= 0:
            raise CannotMeasure(
                f"a call drew no more than the idle machine ({window.watts:.3g} W against "
                f"{self.idle_w:.3g} W)",
                remedy="measure while nothing else runs; or --nnscale-energy=total",
            )
        return above

    def _above_idle(self, window: Window) -> Window:
        call_s = window.seconds / window.calls
        idle_j = self.idle_w * call_s
        watts = [idle.watts for idle in self.idle]
        unsure_w = (max(watts) - min(watts)) / 2 + max(idle.unsure_w for idle in self.idle)
        unsure_j = unsure_w * call_s
        return window._replace(
            joules=window.joules - idle_j,
            half_j=window.half_j + unsure_j,
            pieces=tuple(piece - idle_j for piece in window.pieces),
        )

    def _too_late(self) -> CannotMeasure:
        slow = max(self.watches, key=lambda watch: watch.counter.lag_s)
        return CannotMeasure(
            f"{slow.counter.name} tells what was up to {slow.counter.lag_s:g} s ago, which is waited "
            "for three times",
            remedy=f"give it longer: --nnscale-max-time={time_to_give(3 * self._lag_s / _LAG_SHARE):g}",
        )

    def _too_few(self, calls: int, lasted_s: float) -> CannotMeasure:
        """Say which counter did not move often enough, and how long it would have to be watched."""
        slow = min(self.watches, key=lambda watch: len(watch.updates))
        seen, name = len(slow.updates), slow.counter.name
        each_s = max(self.call_s, slow.counter.resolution_s, lasted_s / (seen + 1))
        remedy = f"give it longer: --nnscale-max-time={time_to_give(8 * each_s):g}"
        if not calls:
            return CannotMeasure(
                f"a call takes {self.call_s:.3g} s, and the first one took all the time there was",
                remedy=remedy,
            )
        step = format_quantity(slow.counter.resolution_j, JOULES)
        told = f"{name} moved {seen} times, in steps of {step}" if seen else f"{name} did not move"
        return CannotMeasure(
            f"{told}, while calls of {self.call_s:.3g} s were made; "
            f"{FEWEST_PIECES + 1} updates are the least that an interval takes",
            remedy=remedy,
        )


def _settles(window: Window, limit_j: float | None) -> bool:
    """Tell whether more time would say nothing more that is asked."""
    if window.quantised_j > QUANTISED * window.joules:
        return False
    if limit_j is None:
        return window.half_j <= 2 * QUANTISED * window.joules
    return abs(window.joules - limit_j) > window.half_j
