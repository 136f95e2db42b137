"""Energy: the joules of a call by counters of known power, or why there are none."""

from __future__ import annotations

import gc
import itertools
import random
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_nnscale.errors import CannotMeasure, NothingThere
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters import energy
from pytest_nnscale.meters.effort import Effort
from pytest_nnscale.meters.energy import measure_energy
from pytest_nnscale.meters.table import measure
from pytest_nnscale.observation import Observation
from pytest_nnscale.power import run
from pytest_nnscale.power.counter import FakeCounter
from pytest_nnscale.power.estimate import EstimatedCounter
from pytest_nnscale.power.wanted import Wanted
from pytest_nnscale.timing.clock import FakeClock


class Unloaded:
    """A machine on which nobody else does anything."""

    others = 0.0

    def others_s(self) -> float:
        return self.others


@pytest.fixture(autouse=True)
def load(monkeypatch: pytest.MonkeyPatch) -> type[Unloaded]:
    """Leave the real load of this machine out: time is fake here."""
    monkeypatch.setattr(Unloaded, "others", 0.0)
    monkeypatch.setattr(energy, "Load", Unloaded)
    return Unloaded


def passing(clock: FakeClock) -> Callable[[float], None]:
    """Return a pause in which only the clock goes on."""

    def pause(seconds: float) -> None:
        clock.time_s += seconds

    return pause


def of_power(*powers_w: float, step_j: float = 1e-6) -> Callable[[FakeClock], list[FakeCounter]]:
    """Return what makes counters of these powers over a clock, named fake 0, fake 1."""
    return lambda clock: [
        FakeCounter(power_w, clock.now_s, step_j, f"fake {n}") for n, power_w in enumerate(powers_w)
    ]


def scripted(
    durations_s: Iterable[float],
    counters: Callable[[FakeClock], list[FakeCounter]],
    **how: object,
) -> tuple[Measurement, FakeClock]:
    clock = FakeClock(durations_s)
    how = {"counters": counters(clock), "clock": clock, "pause": passing(clock), **how}
    return measure_energy(clock.work, **how), clock


def idling(
    idle_w: float,
    busy_w: float,
    *,
    period_s: float = 0.0,
    idle_after_w: float | None = None,
    call_s: float = 0.01,
    **how: object,
) -> Measurement:
    """Measure calls of a machine that draws one power while it waits and another while it works."""
    clock = FakeClock([])
    spent_j, told_j, moved_s = 0.0, 0.0, 0.0
    worked = False

    def spend(seconds: float, watts: float) -> None:
        nonlocal spent_j, told_j, moved_s
        while period_s and clock.time_s + seconds >= moved_s + period_s:
            part_s = moved_s + period_s - clock.time_s
            clock.time_s, seconds, moved_s = (
                moved_s + period_s,
                seconds - part_s,
                moved_s + period_s,
            )
            spent_j += watts * part_s
            told_j = spent_j
        clock.time_s += seconds
        spent_j += watts * seconds
        told_j = told_j if period_s else spent_j

    def call() -> None:
        nonlocal worked
        worked = True
        spend(call_s, busy_w)

    def pause(seconds: float) -> None:
        spend(seconds, idle_after_w if worked and idle_after_w is not None else idle_w)

    class Counter(FakeCounter):
        def read_j(self) -> float:
            return told_j

    counter = Counter(0.0, clock.now_s, 1e-9, resolution_s=period_s)
    return measure_energy(call, counters=[counter], clock=clock, pause=pause, **how)


def lasting(duration_s: float, *powers_w: float, step_j: float = 1e-6, **how: object):
    return scripted(itertools.repeat(duration_s), of_power(*powers_w, step_j=step_j), **how)[0]


@pytest.mark.parametrize(
    ("power_w", "duration_s", "joules"),
    [(20.0, 0.01, 0.2), (350.0, 0.001, 0.35), (5.0, 0.5, 2.5), (700.0, 3.0, 2100.0)],
)
def test_known_power_over_a_known_time_is_known_joules(
    power_w: float, duration_s: float, joules: float
) -> None:
    """Watts times seconds, for updates within a call and of many calls."""
    found = lasting(duration_s, power_w, max_time_s=max(5.0, 12 * duration_s))
    assert found.metric is Metric.ENERGY
    assert found.value == pytest.approx(joules, rel=1e-5)
    assert found.lower <= joules <= found.upper
    assert found.upper - found.lower <= 1e-4 * joules
    assert not found.estimated


def test_counters_add_up() -> None:
    """Package and memory, or two sockets."""
    found = lasting(0.01, 20.0, 5.0, 1.0)
    assert found.value == pytest.approx(0.26, rel=1e-4)
    assert found.method == "fake 0, fake 1, fake 2"


def test_it_states_its_source_and_what_is_in_it() -> None:
    """Mean watts, how often, how long, which counters, and that an idle machine draws power too."""
    found = lasting(0.01, 20.0, 5.0, max_time_s=8.0, limit_j=0.25)
    assert found.method == "fake 0, fake 1"
    assert found.notes[0].startswith("mean 25 W over 7")
    assert found.notes[0].endswith(" s by fake 0, fake 1")
    assert found.notes[1:] == ("idle 25 W before, 25 W after, included",)
    assert len(found.samples) == 10


def test_what_a_counter_has_to_say_is_noted_once() -> None:
    """Two slices of one GPU say the same of it."""
    found, _ = scripted(
        itertools.repeat(0.01),
        lambda clock: [FakeCounter(5.0, clock.now_s, notes=("of the whole GPU",)) for _ in "ab"],
    )
    assert found.notes.count("of the whole GPU") == 1


@pytest.mark.parametrize(("limit_j", "looks"), [(0.3, 1), (0.05, 1), (0.2, 3), (None, 1)])
def test_it_ends_as_soon_as_the_side_of_the_limit_is_known(
    limit_j: float | None, looks: int
) -> None:
    """A limit far off takes a quarter of the time, on either side; a close one takes all of it."""
    found, clock = scripted(
        itertools.repeat(0.01), of_power(20.0), limit_j=limit_j, max_time_s=10.0
    )
    assert found.value == pytest.approx(0.2, rel=1e-4)
    share = {1: 0.25, 3: 1.0}[looks]
    assert clock.time_s == pytest.approx(0.5 + 9.6 * share, abs=0.2)


def test_a_coarse_counter_takes_its_time_however_far_the_limit() -> None:
    """What its steps leave unknown is brought to one part in a hundred first."""
    _, clock = scripted(
        itertools.repeat(0.01), of_power(20.0, step_j=1.0), limit_j=100.0, max_time_s=10.0
    )
    assert clock.time_s > 9.0


def test_the_first_calls_warm_up() -> None:
    """What they used is not in the samples."""
    calls = itertools.chain([0.2, 0.9], itertools.repeat(0.1))
    found, _ = scripted(calls, of_power(10.0), max_time_s=9.0)
    assert found.samples == pytest.approx([1.0] * 10, rel=1e-4)


def test_the_interval_holds_the_mean_of_calls_that_differ() -> None:
    """The value is the mean over all calls, and what parts differ by makes it wide."""
    chance = random.Random(3)
    calls = [chance.choice([0.01, 0.02]) for _ in range(2000)]
    found, _ = scripted(calls, of_power(10.0), max_time_s=9.0, limit_j=0.15)
    assert found.lower < 0.15 < found.upper
    assert 0.002 < found.upper - found.lower < 0.03


def test_more_confidence_makes_it_wider() -> None:
    """Of the same calls."""
    widths = []
    for confidence in (0.9, 0.99, 0.999):
        found, _ = scripted(
            itertools.cycle([0.01, 0.01, 0.03]),
            of_power(20.0),
            confidence=confidence,
            limit_j=20.0 * 0.05 / 3,
            max_time_s=6.0,
        )
        widths.append(found.upper - found.lower)
    assert widths[0] < widths[1] < widths[2]


@pytest.mark.parametrize("counters", [1, 2])
def test_the_interval_is_wider_by_the_step_of_each_counter(counters: int) -> None:
    """A reading may be a step behind the truth; many calls share it."""
    found = lasting(0.25, *[10.0] * counters, step_j=0.5, max_time_s=9.0, limit_j=2.5 * counters)
    calls = 8.0 / 0.25
    of_a_call_j = 0.5 * counters / calls
    assert found.upper - found.value == pytest.approx(of_a_call_j, rel=0.2)
    assert found.value - found.lower == pytest.approx(of_a_call_j, rel=0.2)


def test_what_the_steps_leave_unknown_is_noted() -> None:
    """And what to do about it; a fine counter says nothing of it."""
    coarse = lasting(0.01, 10.0, step_j=1.0, max_time_s=5.0)
    assert any(
        note.startswith("the steps of the counter leave ") and "--nnscale-max-time" in note
        for note in coarse.notes
    )
    fine = lasting(0.01, 10.0, max_time_s=5.0)
    assert not any("leave" in note for note in fine.notes)


def test_no_call_gains_energy() -> None:
    """An interval that is wider than what was seen makes the lower end zero, not less."""
    calls = itertools.cycle([0.01] * 100 + [3.0])
    found, _ = scripted(calls, of_power(10.0), confidence=0.9999, max_time_s=20.0, limit_j=0.4)
    assert found.lower == 0.0
    assert found.value > 0.1
    assert found.upper > 2 * found.value


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.5, 1000.0),
    st.floats(5e-4, 2.0),
    st.one_of(st.just(0.0), st.floats(1e-3, 0.3)),
    st.sampled_from([1e-6, 1e-3, 0.06, 1.0, 10.0]),
    st.sampled_from([0.5, 1.01, 1.0, 2.0, None]),
)
def test_the_truth_is_in_the_interval_or_nothing_is_claimed(
    power_w: float, duration_s: float, period_s: float, step_j: float, limit: float | None
) -> None:
    """However coarse or slow the counter, nobody is told a wrong number."""
    joules = power_w * duration_s
    found, _ = scripted(
        itertools.repeat(duration_s),
        lambda clock: [FakeCounter(power_w, clock.now_s, step_j, resolution_s=period_s)],
        limit_j=None if limit is None else limit * joules,
    )
    if found.unmeasured:
        assert found.value is None
        assert found.reason
    else:
        slack = 1 + 1e-6
        assert found.lower / slack <= joules <= found.upper * slack


def updated_every(period_s: float, duration_s: float) -> Measurement:
    """Measure by a counter of 100 W that moves at once by what a whole period took."""

    def updated(clock: FakeClock) -> list[FakeCounter]:
        return [FakeCounter(100.0, clock.now_s, 1e-3, resolution_s=period_s)]

    return scripted(itertools.repeat(duration_s), updated, limit_j=100.0 * duration_s)[0]


@pytest.mark.parametrize("period_s", [0.001, 0.1, 0.3])
@pytest.mark.parametrize("duration_s", [0.0007, 0.011, 0.13])
def test_a_counter_that_is_updated_now_and_then_tells_nothing_wrong(
    duration_s: float, period_s: float
) -> None:
    """Real ones move every millisecond or every tenth of a second, by more than their step."""
    found = updated_every(period_s, duration_s)
    assert found.lower <= 100.0 * duration_s <= found.upper


@pytest.mark.parametrize(("duration_s", "period_s"), [(0.011, 0.02), (0.061, 0.1)])
def test_calls_in_step_with_the_updates_of_a_counter_tell_nothing_wrong(
    duration_s: float, period_s: float
) -> None:
    """Then each part of the window may be wrong by the same part of an update."""
    found = updated_every(period_s, duration_s)
    assert found.lower <= 100.0 * duration_s <= found.upper


def test_a_counter_that_is_updated_too_seldom_is_unmeasured() -> None:
    """Four updates in all the time tell no interval; it says how long would do."""
    found = updated_every(1.0, 0.01)
    assert found.unmeasured
    assert "5 updates are the least that an interval takes" in found.reason
    assert found.remedy.startswith("give it longer: --nnscale-max-time=")


@pytest.mark.parametrize(
    ("power_w", "step_j", "told"),
    [
        (10.0, 100.0, "did not move"),
        (10.0, 15.0, "moved 3 times, in steps of 15.0 J"),
        (1e-9, 1e-6, "did not move"),
        (0.0, 1e-6, "did not move"),
    ],
)
def test_a_counter_too_coarse_for_the_window_is_unmeasured(
    power_w: float, step_j: float, told: str
) -> None:
    """Zero joules would be a pass."""
    found = lasting(0.01, power_w, step_j=step_j)
    assert found.unmeasured
    assert (found.value, found.lower, found.upper, found.samples) == (None, None, None, ())
    assert found.reason.startswith(f"fake 0 {told}")
    assert "while calls of 0.01 s were made" in found.reason
    assert found.missing == ""


@pytest.mark.parametrize("step_j", [15.0, 40.0, 100.0])
def test_the_remedy_for_a_coarse_counter_helps(step_j: float) -> None:
    """In the time that it states, it moves often enough; at the latest when asked again."""
    max_time_s = 5.0
    for _ in range(3):
        found = lasting(0.01, 10.0, step_j=step_j, max_time_s=max_time_s)
        if not found.unmeasured:
            break
        longer_s = float(found.remedy.rpartition("=")[2])
        assert longer_s > max_time_s
        max_time_s = longer_s
    assert found.lower <= 0.1 <= found.upper


def test_a_counter_that_stands_still_beside_one_that_moves_is_unmeasured() -> None:
    """Its joules are unknown, not zero: the docstring says of one that it measures nothing."""
    assert lasting(0.01, 20.0, 0.0).unmeasured


def test_no_counters_at_all_are_unmeasured() -> None:
    """The sum of nothing is no measurement."""
    found = lasting(0.01)
    assert found.unmeasured
    assert found.reason == "no energy counter of cpu was given"


def test_a_counter_that_goes_backwards_is_unmeasured() -> None:
    """Negative joules are no joules."""
    found = lasting(0.01, -5.0)
    assert found.unmeasured
    assert found.reason.startswith("fake 0 went back from ")


def test_a_device_without_a_counter_says_why_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And that the machine lacks energy, which --nnscale-require may demand."""
    asked: list[tuple[str, Wanted]] = []

    def find(device: str, wanted: Wanted) -> None:
        asked.append((device, wanted))
        raise NothingThere("no counter here", remedy="buy one")

    monkeypatch.setattr(energy, "find_counters", find)
    found = measure_energy(pytest.fail, device="cuda:1", wanted=Wanted(scope="machine"))
    assert found.unmeasured
    assert found.value is None
    assert found.reason == "no counter here"
    assert found.remedy == "buy one"
    assert found.missing == "energy"
    assert asked == [("cuda:1", Wanted(scope="machine"))]


def test_the_counters_of_the_device_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the table of meters, with its effort, named after what was observed."""
    clock = FakeClock(itertools.repeat(0.01))
    gpu = {"cuda:1": of_power(20.0)(clock)}
    monkeypatch.setattr(energy, "WallClock", {"cuda:1": clock}.get)
    monkeypatch.setattr(energy, "find_counters", lambda device, wanted: gpu[device])
    monkeypatch.setattr(run, "idle_watts", lambda *_, **__: None)
    seen = Observation("Net", repeat=clock.work, device="cuda:1")
    found = measure(Metric.ENERGY, seen, effort=Effort(max_time_s=1.2, confidence=0.9))
    assert found.value == pytest.approx(0.2, rel=1e-3)
    assert (found.subject, found.method) == ("Net", "fake 0")
    assert clock.time_s <= 1.2


@dataclass
class FailingCounter(FakeCounter):
    """A counter that is lost after some readings."""

    readings: int = 4

    def read_j(self) -> float:
        self.readings -= 1
        if self.readings < 0:
            raise CannotMeasure("NVML gives no energy: GPU is lost", remedy="reset it")
        return super().read_j()


@pytest.mark.parametrize("readings", [0, 1, 50, 100])
def test_a_counter_that_is_lost_is_the_reason(readings: int) -> None:
    """Half a measurement is none, and this machine does not lack a counter."""
    found, _ = scripted(
        itertools.repeat(0.01),
        lambda clock: [FailingCounter(20.0, clock.now_s, readings=readings)],
        limit_j=0.2,
        max_time_s=1.0,
    )
    assert found.unmeasured
    assert (found.reason, found.remedy) == ("NVML gives no energy: GPU is lost", "reset it")
    assert found.missing == ""


@pytest.mark.parametrize("number", [1, 3, 100])
def test_a_call_that_raises_is_unmeasured(number: int) -> None:
    """In the warm-up or in any window: its error is the reason."""
    clock, calls = FakeClock(itertools.repeat(0.01)), itertools.count(1)

    def call() -> None:
        clock.work()
        if next(calls) == number:
            raise ValueError("an iterator at its end")

    found = measure_energy(call, counters=of_power(20.0)(clock), clock=clock, pause=passing(clock))
    assert found.unmeasured
    assert found.reason == "the call cannot be repeated: ValueError: an iterator at its end"
    assert found.remedy == "hand the nnscale fixture a call that can run many times"


def test_an_interrupt_passes_through() -> None:
    """Control-C is not a measurement."""
    clock = FakeClock([])

    def call() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_energy(call, counters=of_power(20.0)(clock), clock=clock, pause=passing(clock))


def test_slow_calls_do_not_take_many_times_what_was_given() -> None:
    """--nnscale-max-time is what a budget may take: nine calls of 4 s are not 5 s."""
    _, clock = scripted(itertools.repeat(4.0), of_power(20.0), max_time_s=5.0)
    assert clock.time_s <= 10.0


def test_a_powercap_tree_that_wraps_meanwhile_gives_the_known_joules(tmp_path: Path) -> None:
    """From the kernel's files to the measurement: 30 W for 10 ms are 0.3 J."""
    range_uj, zone = 10_000_000, tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text(f"{range_uj}\n")
    (zone / "energy_uj").write_text("0\n")
    clock, calls = FakeClock(itertools.repeat(0.01)), itertools.count(1)

    def call() -> None:
        clock.work()
        (zone / "energy_uj").write_text(f"{next(calls) * 300_000 % range_uj}\n")

    (zone / "constraint_0_power_limit_uw").write_text("30000000\n")
    found = measure_energy(
        call,
        wanted=Wanted(powercap_root=tmp_path),
        clock=clock,
        max_time_s=1.35,
        pause=passing(clock),
        limit_j=0.3,
    )
    assert found.method == "RAPL package-0"
    assert found.value == pytest.approx(0.3)
    assert found.lower <= 0.3 <= found.upper
    assert 0 < found.upper - found.lower < 5e-3
    # More was used than the counter's range, so that it did wrap.
    assert next(calls) * 300_000 > 2 * range_uj


def test_idle_power_before_and_after_is_noted() -> None:
    """And is in the joules unless it is asked to be left out."""
    found = idling(30.0, 100.0, idle_after_w=40.0)
    assert found.value == pytest.approx(1.0, rel=1e-3)
    assert "idle 30 W before, 40 W after, included" in found.notes


def test_above_idle_leaves_the_idle_power_out() -> None:
    """Joules, interval and samples; the mean watts stay those of the machine."""
    found = idling(30.0, 100.0, wanted=Wanted(above_idle=True))
    assert found.value == pytest.approx(0.7, rel=1e-3)
    assert found.lower <= 0.7 <= found.upper
    assert found.samples == pytest.approx([0.7] * 10, rel=1e-3)
    assert found.notes[0].startswith("mean 100 W")
    assert "idle 30 W before, 30 W after, left out" in found.notes


@pytest.mark.parametrize("period_s", [0.001, 0.02, 0.1])
@pytest.mark.parametrize("after_w", [30.0, 50.0])
def test_above_idle_the_truth_is_in_the_interval(period_s: float, after_w: float) -> None:
    """What is not known of the idle power is not known of the difference."""
    found = idling(
        30.0, 100.0, period_s=period_s, idle_after_w=after_w, wanted=Wanted(above_idle=True)
    )
    for idle_w in (30.0, after_w):
        assert found.lower - 1e-9 <= 0.01 * (100.0 - idle_w) <= found.upper + 1e-9


def test_above_idle_the_limit_is_that_of_the_difference() -> None:
    """1 J a call is far above 0.7 J; what is above idle is close to it, and takes all the time."""
    found = idling(
        30.0, 100.0, period_s=0.02, limit_j=0.7, max_time_s=4.0, wanted=Wanted(above_idle=True)
    )
    assert float(found.notes[0].partition(" calls in ")[2].partition(" s")[0]) > 2.5
    assert found.lower <= 0.7 <= found.upper


def test_above_idle_is_unmeasured_where_idle_is_not_known() -> None:
    """One update in the pause is no power; the whole is known all the same."""
    found = idling(30.0, 100.0, period_s=0.3, max_time_s=4.0, wanted=Wanted(above_idle=True))
    assert found.unmeasured
    assert found.value is None
    assert found.reason.startswith("the idle power is not known")
    whole = idling(30.0, 100.0, period_s=0.3, max_time_s=4.0)
    assert whole.lower <= 1.0 <= whole.upper
    assert "idle power not known, and included" in whole.notes


def test_a_call_that_draws_less_than_idle_is_unmeasured() -> None:
    """Fewer than no joules would pass every budget."""
    found = idling(100.0, 30.0, wanted=Wanted(above_idle=True))
    assert found.unmeasured
    assert found.reason == "a call drew no more than the idle machine (30 W against 100 W)"


@pytest.mark.parametrize(("others_s", "noted"), [(0.0, False), (None, False), (5.0, True)])
def test_other_load_is_noted(load: type[Unloaded], others_s: float | None, noted: bool) -> None:
    """In cores; where nothing tells it, nothing is said."""
    load.others = others_s
    notes = lasting(0.01, 20.0, limit_j=0.2).notes
    assert any(note.startswith("other processes used 1.1 cores") for note in notes) is noted


@pytest.mark.parametrize(
    ("grid", "note"),
    [(400.0, "0.000111 g CO2e a call at 400 g/kWh"), (0.0, "0 g CO2e a call at 0 g/kWh")],
)
def test_grams_are_told_where_the_grid_is(grid: float, note: str) -> None:
    """1 J is 1/3.6e6 kWh."""
    assert note in lasting(0.01, 100.0, wanted=Wanted(grid_g_per_kwh=grid)).notes


def test_no_grid_no_grams() -> None:
    """Nothing is looked up."""
    assert not any("CO2" in note for note in lasting(0.01, 100.0).notes)


def test_an_estimate_calls_itself_one() -> None:
    """In the measurement, its method and its notes, beside whatever was measured."""
    clock = FakeClock(itertools.repeat(0.01))
    counter = EstimatedCounter(8.0, cpu_s=clock.now_s)
    found = measure_energy(clock.work, counters=[counter], clock=clock, pause=passing(clock))
    assert found.estimated
    assert found.value == pytest.approx(0.08, rel=1e-3)
    assert found.method == "estimate: CPU time x 8 W a core"
    assert any(note.startswith("an estimate, no measurement") for note in found.notes)


def test_no_garbage_is_collected_meanwhile() -> None:
    """A collection is no part of the call; after it, collecting goes on."""
    clock, enabled = FakeClock(itertools.repeat(0.01)), []

    def call() -> None:
        clock.work()
        enabled.append(gc.isenabled())

    measure_energy(call, counters=of_power(20.0)(clock), clock=clock, pause=passing(clock))
    assert set(enabled) == {False}
    assert gc.isenabled()


def test_a_counter_runs_only_while_it_is_read() -> None:
    """What it has to enter is left again, also where the call raises."""
    clock, running = FakeClock([0.01] * 10), []

    class Entered(FakeCounter):
        @contextmanager
        def running(self):
            running.append("in")
            try:
                yield
            finally:
                running.append("out")

    counter = Entered(1.0, clock.now_s)
    found = measure_energy(clock.work, counters=[counter], clock=clock, pause=passing(clock))
    assert found.unmeasured
    assert running == ["in", "out"]


def test_above_idle_is_less_sure_than_the_whole() -> None:
    """By what is not known of the moments at which idle updates came."""
    whole = idling(30.0, 100.0, period_s=0.1)
    above = idling(30.0, 100.0, period_s=0.1, wanted=Wanted(above_idle=True))
    assert above.upper - above.lower > 1.2 * (whole.upper - whole.lower)


def test_one_long_call_is_enough_to_warm_up() -> None:
    """A second one would leave too little time for as many calls as an interval takes."""
    assert not lasting(1.1, 20.0, max_time_s=8.0).unmeasured


def averaged(lag_s: float, stated_s: float, **how: object) -> Measurement:
    """Measure by a counter whose power is an average over `lag_s`, of which it states another.

    10 ms a call at 75 W, after and before an idle power of 20 W.
    """
    clock = FakeClock([])
    power = [(0.0, 20.0)]  # from when on, how much

    def integral(until_s: float) -> float:
        ends = [*[since for since, _ in power[1:]], until_s]
        return sum(
            watts * max(0.0, min(end, until_s) - since)
            for (since, watts), end in zip(power, ends, strict=True)
        )

    def change(watts: float) -> None:
        if power[-1][1] != watts:
            power.append((clock.time_s, watts))

    def call() -> None:
        change(75.0)
        clock.time_s += 0.01

    def pause(seconds: float) -> None:
        change(20.0)
        clock.time_s += seconds

    told = [0.0, 0.0]  # until when, how many joules

    class Counter(FakeCounter):
        def read_j(self) -> float:
            while told[0] < clock.time_s:
                step_s = min(0.01, clock.time_s - told[0])
                at_s = told[0] + step_s
                mean_w = (integral(at_s) - integral(max(0.0, at_s - lag_s))) / min(lag_s, at_s)
                told[:] = at_s, told[1] + mean_w * step_s
            return told[1]

    counter = Counter(0.0, clock.now_s, 1e-6, resolution_s=0.02, lag_s=stated_s)
    return measure_energy(call, counters=[counter], clock=clock, pause=pause, **how)


@pytest.mark.parametrize("limit_j", [0.6, 0.75, 3.0])
def test_power_that_is_averaged_is_not_taken_for_that_of_the_calls(limit_j: float) -> None:
    """The first second after a rest has some of the rest in it: 0.6 J a call would be kept."""
    found = averaged(1.0, 1.0, limit_j=limit_j, max_time_s=6.0)
    assert found.value == pytest.approx(0.75, rel=0.01)
    assert found.lower <= 0.75 <= found.upper
    assert "idle 20 W before, 20 W after, included" in found.notes
    wrong = averaged(1.0, 0.0, limit_j=limit_j, max_time_s=3.0)
    assert wrong.value < 0.7  # it is what the test can see


def test_too_little_time_for_a_counter_that_lags_says_how_much_it_takes() -> None:
    """Three times its lag is waited for."""
    found = averaged(1.0, 1.0, max_time_s=4.0)
    assert found.reason == "fake tells what was up to 1 s ago, which is waited for three times"
    assert found.remedy == "give it longer: --nnscale-max-time=4.3"
    assert averaged(1.0, 1.0, max_time_s=4.3).value is not None


def test_all_looks_together_err_no_more_often_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that is never decided is looked at three times, and the error is shared."""
    spent: list[float] = []
    real = run.window_of

    def noted(watches: object, *, error: float) -> object:
        spent.append(error)
        return real(watches, error=error)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "window_of", noted)
    lasting(0.01, 20.0, limit_j=0.2, max_time_s=10.0)
    assert len(spent) == 3
    assert sum(spent) == pytest.approx(0.01)


def test_the_device_is_at_rest_when_its_counter_is_read() -> None:
    """Calls only queue their work: the clock waits for it, and is asked first."""

    class Queue(FakeClock):
        pending_s = 0.0

        def now_s(self) -> float:
            self.time_s, self.pending_s = self.time_s + self.pending_s, 0.0
            return self.time_s

    clock, pending = Queue([]), []

    def call() -> None:
        clock.pending_s += 0.01

    class Counter(FakeCounter):
        def read_j(self) -> float:
            pending.append(clock.pending_s)
            return super().read_j()

    counter = Counter(20.0, lambda: clock.time_s)
    found = measure_energy(call, counters=[counter], clock=clock, pause=passing(clock))
    assert found.value == pytest.approx(0.2, rel=1e-3)
    assert set(pending) == {0.0}


def test_what_looking_takes_is_no_part_of_a_call() -> None:
    """A millisecond for each reading: the calls are known less surely, not longer."""
    clock = FakeClock(itertools.repeat(0.01))

    class Slow(FakeCounter):
        def read_j(self) -> float:
            joules = super().read_j()
            clock.time_s += 1e-3
            return joules

    counter = Slow(20.0, lambda: clock.time_s)
    found = measure_energy(clock.work, counters=[counter], clock=clock, pause=passing(clock))
    assert found.lower <= 0.2 < found.value
    assert found.value < 0.2 * 1.02  # looking takes no more than a part in 200, or twice that


def test_an_estimate_beside_a_measurement_makes_an_estimate_of_both() -> None:
    """The GPU is measured, the CPU is not: the sum is not measured."""
    clock = FakeClock(itertools.repeat(0.01))
    counters = [FakeCounter(20.0, clock.now_s), EstimatedCounter(8.0, cpu_s=clock.now_s)]
    found = measure_energy(clock.work, counters=counters, clock=clock, pause=passing(clock))
    assert found.estimated
    assert any(note.startswith("idle ") for note in found.notes)


def test_an_estimate_says_nothing_of_the_machine(load: type[Unloaded]) -> None:
    """The CPU time of this process is no idle power, and has none of others in it."""
    load.others = 5.0
    clock = FakeClock(itertools.repeat(0.01))
    counter = EstimatedCounter(8.0, cpu_s=clock.now_s)
    found = measure_energy(clock.work, counters=[counter], clock=clock, pause=passing(clock))
    assert not any(note.startswith(("idle ", "other processes")) for note in found.notes)


def test_other_load_is_no_part_of_what_a_gpu_drew(load: type[Unloaded]) -> None:
    """But told: it may have held the calls up."""
    load.others = 5.0
    clock = FakeClock(itertools.repeat(0.01))
    counter = FakeCounter(20.0, clock.now_s, device="cuda:0")
    found = measure_energy(clock.work, counters=[counter], clock=clock, pause=passing(clock))
    told = next(note for note in found.notes if note.startswith("other processes"))
    assert told.endswith("beside what is counted here")


def test_a_call_that_takes_all_the_time_is_not_the_counters_fault() -> None:
    """Nothing was made while it was watched."""
    found = lasting(6.0, 20.0, max_time_s=5.0)
    assert found.unmeasured
    assert found.reason == "a call takes 6 s, and the first one took all the time there was"
    assert found.remedy == "give it longer: --nnscale-max-time=48"


def test_a_counter_that_stops_meanwhile_is_no_measurement() -> None:
    """Its last value would stay for all that follows."""
    clock = FakeClock(itertools.repeat(0.01))
    counter = FakeCounter(lambda time_s: 20.0 * min(time_s, 1.0), clock.now_s)
    found = measure_energy(
        clock.work, counters=[counter], clock=clock, pause=passing(clock), limit_j=0.2
    )
    assert found.unmeasured
    assert found.reason.startswith("fake stopped: it moved every ")
