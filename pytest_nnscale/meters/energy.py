"""Energy: the joules of one call.

Counts: what the counters of the device gained from one of their updates to another, the machine's
idle power included unless it is asked to be left out, divided by the calls that were made meanwhile.
Does not count: devices without a counter; a budget where there is none is unmeasured, never zero.
Error sources: what is not known of both ends of the window (the counter's steps, and calls that were
under way), and how much parts of the window differ: both are in the interval. Other load on the
machine is in the joules, and noted.
Reference: NVML's nvmlDeviceGetTotalEnergyConsumption, the kernel's powercap documentation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from pytest_nnscale.errors import CannotMeasure, WrongSource
from pytest_nnscale.garbage import collected_later
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.power.counter import EnergyCounter
from pytest_nnscale.power.idle import Idle, idle_watts
from pytest_nnscale.power.load import Load
from pytest_nnscale.power.sources import find_counters
from pytest_nnscale.power.wanted import Wanted
from pytest_nnscale.power.watch import Watch
from pytest_nnscale.power.window import FEWEST_PIECES, Window, window_of
from pytest_nnscale.timing.clock import Clock, WallClock
from pytest_nnscale.timing.sampling import time_to_give
from pytest_nnscale.units import JOULES, format_quantity

# The share of the joules that may be left unknown by the counter's steps.
_QUANTISED = 0.01
# When the interval is looked at, in shares of the time, and the share of the error that each look spends.
_LOOKS = ((0.25, 0.25), (0.5, 0.25), (1.0, 0.5))
# A first call that takes more of the time than this is the only one that warms up.
_WARM_UP_SHARE = 0.05
_IDLE_SHARE, _IDLE_S, _IDLE_UPDATES = 0.1, 0.2, 3
# How often to look at the counters: not so often that looking is more than a part in 200 of the time.
_LOOK_S, _LOOKS_SHARE = 5e-3, 1 / 200
_OTHERS = 0.05
_USUAL = Wanted()


def measure_energy(
    call: Callable[[], object],
    *,
    device: str = "cpu",
    limit_j: float | None = None,
    confidence: float = 0.99,
    max_time_s: float = 5.0,
    wanted: Wanted = _USUAL,
    counters: Sequence[EnergyCounter] | None = None,
    clock: Clock | None = None,
    pause: Callable[[float], object] = time.sleep,
) -> Measurement:
    """Measure the joules of a call by the counters of its device; never raises what the call does.

    It ends as soon as it is known on which side of `limit_j` they lie, or after `max_time_s`.
    No counter, or one that did not move often enough, measures nothing.
    """
    try:
        found = tuple(counters) if counters is not None else find_counters(device, wanted)
    except CannotMeasure as error:
        missing = "" if isinstance(error, WrongSource) else "energy"
        return Measurement.nothing(
            Metric.ENERGY, reason=error.reason, remedy=error.remedy, missing=missing
        )
    if not found:
        return Measurement.nothing(
            Metric.ENERGY,
            reason=f"no energy counter of {device} was given",
            remedy="give at least one",
            missing="energy",
        )
    run = _Run(call, [Watch(counter) for counter in found], clock or WallClock(device), pause)
    try:
        with ExitStack() as running, collected_later():
            for counter in found:
                running.enter_context(counter.running())
            window = run.measure(limit_j, 1 - confidence, max_time_s, above_idle=wanted.above_idle)
    except CannotMeasure as error:
        return Measurement.nothing(Metric.ENERGY, reason=error.reason, remedy=error.remedy)
    except Exception as error:
        return Measurement.nothing(
            Metric.ENERGY,
            reason=f"the call cannot be repeated: {type(error).__name__}: {error}",
            remedy="hand the nnscale fixture a call that can run many times",
        )
    return run.told(window, wanted)


@dataclass
class _Run:
    """One measurement under way: what the machine drew before, meanwhile and after."""

    call: Callable[[], object]
    watches: list[Watch]
    clock: Clock
    pause: Callable[[float], object]
    idle: list[Idle] = field(default_factory=list)
    others: float | None = None
    call_s: float = 0.0
    looked_s: float = 0.0

    def measure(
        self, limit_j: float | None, error: float, max_time_s: float, *, above_idle: bool
    ) -> Window:
        """Return the window, joules above idle if so asked; CannotMeasure says why there is none."""
        idle_s = min(max(_IDLE_S, _IDLE_UPDATES * self._update_s), max_time_s * _IDLE_SHARE)
        self._rest(idle_s)
        warming_s = self._warm_up(max_time_s)
        load, begun_s = Load(), self.clock.now_s()
        for_s = max_time_s - 2 * idle_s - warming_s
        window = self._work(limit_j, error, for_s, above_idle=above_idle)
        others_s = load.others_s()
        if others_s is not None:
            self.others = others_s / (self.clock.now_s() - begun_s)
        self._rest(idle_s)
        if not above_idle:
            return window
        if len(self.idle) < 2:
            raise CannotMeasure(
                "the idle power is not known: the counter did not move often enough while "
                "nothing was done",
                remedy="give it longer: --nnscale-max-time; or --nnscale-energy=total",
            )
        above = self._above_idle(window)
        if above.joules + above.half_j <= 0:
            raise CannotMeasure(
                f"a call drew no more than the idle machine ({window.watts:.3g} W against "
                f"{self._idle_w:.3g} W)",
                remedy="measure while nothing else runs; or --nnscale-energy=total",
            )
        return above

    @property
    def _update_s(self) -> float:
        return max((watch.counter.resolution_s for watch in self.watches), default=0.0)

    def _rest(self, for_s: float) -> None:
        idle = idle_watts(
            self.watches, for_s=for_s, every_s=_LOOK_S, now_s=self.clock.now_s, pause=self.pause
        )
        if idle is not None:
            self.idle.append(idle)

    def _warm_up(self, max_time_s: float) -> float:
        """Call twice, or once where that takes long; return the seconds that it took."""
        begun_s = at_s = self.clock.now_s()
        for _ in range(2):
            self.call()
            before_s, at_s = at_s, self.clock.now_s()
            self.call_s = at_s - before_s
            if self.call_s > _WARM_UP_SHARE * max_time_s:
                break
        return at_s - begun_s

    def _work(
        self, limit_j: float | None, error: float, for_s: float, *, above_idle: bool
    ) -> Window:
        """Call until it is known on which side of the limit the joules lie, or the time is over."""
        begun_s, calls, looks = self.clock.now_s(), 0, 0
        at_s, at_once = begun_s, 1
        window = None
        for share, spent in _LOOKS:
            until_s = begun_s + share * for_s
            while at_s < until_s:
                for _ in range(at_once):
                    self.call()
                calls += at_once
                looks += 1
                at_s = self._look(calls)
                self.call_s = (at_s - begun_s) / calls
                every_s = max(_LOOK_S, self._update_s / 20, self.looked_s / looks / _LOOKS_SHARE)
                at_once = max(1, int(every_s / self.call_s)) if self.call_s else at_once
            window = self._window(error * spent, at_s - begun_s)
            if window is not None:
                asked = self._above_idle(window) if above_idle and self.idle else window
                if _settles(asked, limit_j):
                    break
        if window is None:
            raise self._too_few(at_s - begun_s)
        return window

    def _window(self, error: float, lasted_s: float) -> Window | None:
        window = window_of(self.watches, error=error)
        if window is None or not math.isfinite(window.half_j):
            return None
        # What looking took was no part of the calls.
        looked = self.looked_s / lasted_s
        return window._replace(half_j=window.half_j + looked * window.joules)

    def _look(self, calls: int) -> float:
        """Look at every counter, with the device at rest; return when that was."""
        at_s = self.clock.now_s()
        for watch in self.watches:
            watch.look(at_s, calls)
        self.looked_s += self.clock.now_s() - at_s
        return at_s

    def _too_few(self, lasted_s: float) -> CannotMeasure:
        """Say which counter did not move often enough, and how long it would have to be watched."""
        slow = min(self.watches, key=lambda watch: len(watch.updates))
        seen, name = len(slow.updates), slow.counter.name
        step = format_quantity(slow.counter.resolution_j, JOULES)
        told = f"{name} moved {seen} times, in steps of {step}" if seen else f"{name} did not move"
        each_s = max(self.call_s, slow.counter.resolution_s, lasted_s / (seen + 1))
        return CannotMeasure(
            f"{told}, while calls of {self.call_s:.3g} s were made; "
            f"{FEWEST_PIECES + 1} updates are the least that an interval takes",
            remedy=f"give it longer: --nnscale-max-time={time_to_give(8 * each_s):g}",
        )

    def _above_idle(self, window: Window) -> Window:
        call_s = window.seconds / window.calls
        idle_j = self._idle_w * call_s
        watts = [idle.watts for idle in self.idle]
        unsure_w = (max(watts) - min(watts)) / 2 + max(idle.unsure_w for idle in self.idle)
        unsure_j = unsure_w * call_s
        return window._replace(
            joules=window.joules - idle_j,
            half_j=window.half_j + unsure_j,
            pieces=tuple(piece - idle_j for piece in window.pieces),
        )

    @property
    def _idle_w(self) -> float:
        return sum(idle.watts for idle in self.idle) / len(self.idle)

    def told(self, window: Window, wanted: Wanted) -> Measurement:
        """Return the measurement, with all that has to be said of it."""
        names = ", ".join(watch.counter.name for watch in self.watches)
        notes = [
            f"mean {window.watts:.3g} W over {window.calls:.4g} calls in {window.seconds:.2g} s "
            f"by {names}",
            self._idle_note(above_idle=wanted.above_idle),
        ]
        if window.quantised_j > _QUANTISED * window.joules:
            notes.append(
                f"the steps of the counter leave {100 * window.quantised_j / window.joules:.2g} % "
                "unknown: a longer --nnscale-max-time leaves less"
            )
        if self.others is not None and self.others > _OTHERS:
            notes.append(
                f"other processes used {self.others:.2g} cores meanwhile, and their joules are in it"
            )
        if wanted.grid_g_per_kwh is not None:
            notes.append(_carbon_note(window.joules, wanted.grid_g_per_kwh))
        notes += [note for watch in self.watches for note in watch.counter.notes]
        return Measurement(
            Metric.ENERGY,
            window.joules,
            max(0.0, window.joules - window.half_j),
            window.joules + window.half_j,
            method=names,
            samples=window.pieces,
            notes=tuple(dict.fromkeys(notes)),
            estimated=any(getattr(watch.counter, "estimated", False) for watch in self.watches),
        )

    def _idle_note(self, *, above_idle: bool) -> str:
        if not self.idle:
            return "idle power not known, and included"
        idle = " W before, ".join(f"{each.watts:.3g}" for each in self.idle)
        after = " W after" if len(self.idle) == 2 else " W"
        return f"idle {idle}{after}, {'left out' if above_idle else 'included'}"


def _settles(window: Window, limit_j: float | None) -> bool:
    """Tell whether more time would say nothing more that is asked."""
    if window.quantised_j > _QUANTISED * window.joules:
        return False
    if limit_j is None:
        return window.half_j <= 2 * _QUANTISED * window.joules
    return abs(window.joules - limit_j) > window.half_j


def _carbon_note(joules: float, grid_g_per_kwh: float) -> str:
    grams = joules / 3.6e6 * grid_g_per_kwh
    return f"{grams:.3g} g CO2e a call at {grid_g_per_kwh:g} g/kWh"
