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

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from pytest_nnscale.errors import CannotMeasure, NothingThere
from pytest_nnscale.garbage import collected_later
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.power.counter import EnergyCounter
from pytest_nnscale.power.load import Load
from pytest_nnscale.power.run import QUANTISED, CallFailed, Run
from pytest_nnscale.power.sources import find_counters
from pytest_nnscale.power.wanted import Wanted
from pytest_nnscale.power.watch import Watch
from pytest_nnscale.power.window import Window
from pytest_nnscale.timing.clock import Clock, WallClock

# Other processes that use more cores than this are told of.
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
        missing = "energy" if isinstance(error, NothingThere) else ""
        return _nothing(error, missing=missing)
    if not found:
        none = CannotMeasure(f"no energy counter of {device} was given", remedy="give at least one")
        return _nothing(none, missing="energy")
    now_s = (clock or WallClock(device)).now_s
    run = Run(call, [Watch(counter) for counter in found], now_s, pause, Load)
    try:
        with ExitStack() as running, collected_later():
            for counter in found:
                running.enter_context(counter.running())
            window = run.measure(limit_j, 1 - confidence, max_time_s, above_idle=wanted.above_idle)
    except CannotMeasure as error:
        return _nothing(error)
    except CallFailed as failed:
        cause = failed.__cause__
        return Measurement.nothing(
            Metric.ENERGY,
            reason=f"the call cannot be repeated: {type(cause).__name__}: {cause}",
            remedy="hand the nnscale fixture a call that can run many times",
        )
    return _told(run, window, wanted)


def _nothing(error: CannotMeasure, *, missing: str = "") -> Measurement:
    return Measurement.nothing(
        Metric.ENERGY, reason=error.reason, remedy=error.remedy, missing=missing
    )


def _told(run: Run, window: Window, wanted: Wanted) -> Measurement:
    """Return the measurement, with all that has to be said of it."""
    counters = [watch.counter for watch in run.watches]
    names = ", ".join(counter.name for counter in counters)
    estimates = [getattr(counter, "estimated", False) for counter in counters]
    notes = [
        f"mean {window.watts:.3g} W over {window.calls:.4g} calls in {window.seconds:.2g} s "
        f"by {names}"
    ]
    if not all(estimates):  # CPU time tells nothing of a machine that is idle, nor of others
        notes.append(_idle_note(run, above_idle=wanted.above_idle))
    if window.quantised_j > QUANTISED * window.joules:
        notes.append(
            f"the steps of the counter leave {100 * window.quantised_j / window.joules:.2g} % "
            "unknown: a longer --nnscale-max-time leaves less"
        )
    # A GPU does nothing for those who use the CPU.
    if not all(estimates) and run.others is not None and run.others > _OTHERS:
        counted = any(counter.device.startswith("cpu") for counter in counters)
        joules = "and their joules are in it" if counted else "beside what is counted here"
        notes.append(f"other processes used {run.others:.2g} cores meanwhile, {joules}")
    if wanted.grid_g_per_kwh is not None:
        notes.append(_carbon_note(window.joules, wanted.grid_g_per_kwh))
    notes += [note for counter in counters for note in counter.notes]
    return Measurement(
        Metric.ENERGY,
        window.joules,
        max(0.0, window.joules - window.half_j),
        window.joules + window.half_j,
        method=names,
        samples=window.pieces,
        notes=tuple(dict.fromkeys(notes)),
        estimated=any(estimates),
    )


def _idle_note(run: Run, *, above_idle: bool) -> str:
    if not run.idle:
        return "idle power not known, and included"
    idle = " W before, ".join(f"{each.watts:.3g}" for each in run.idle)
    after = " W after" if len(run.idle) == 2 else " W"
    return f"idle {idle}{after}, {'left out' if above_idle else 'included'}"


def _carbon_note(joules: float, grid_g_per_kwh: float) -> str:
    grams = joules / 3.6e6 * grid_g_per_kwh
    return f"{grams:.3g} g CO2e a call at {grid_g_per_kwh:g} g/kWh"
