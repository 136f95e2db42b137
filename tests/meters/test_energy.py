"""Energy: the joules of a call by counters of known power, or why there are none."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters import energy
from pytest_nnscale.meters.effort import Effort
from pytest_nnscale.meters.energy import measure_energy
from pytest_nnscale.meters.table import measure
from pytest_nnscale.observation import Observation
from pytest_nnscale.power.counter import FakeCounter, find_counters
from pytest_nnscale.timing.clock import FakeClock


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
    return measure_energy(clock.work, counters=counters(clock), clock=clock, **how), clock


def lasting(duration_s: float, *powers_w: float, step_j: float = 1e-6, **how: object):
    return scripted(itertools.repeat(duration_s), of_power(*powers_w, step_j=step_j), **how)[0]


@pytest.mark.parametrize(
    ("power_w", "duration_s", "joules"),
    [(20.0, 0.01, 0.2), (350.0, 0.001, 0.35), (5.0, 0.5, 2.5), (700.0, 3.0, 2100.0)],
)
def test_known_power_over_a_known_time_is_known_joules(
    power_w: float, duration_s: float, joules: float
) -> None:
    """Watts times seconds, for windows of one call and of many."""
    found = lasting(duration_s, power_w, max_time_s=max(5.0, 9 * duration_s))
    assert found.metric is Metric.ENERGY
    assert found.value == pytest.approx(joules, rel=1e-5)
    assert found.lower <= joules <= found.upper
    assert found.upper - found.lower <= 1e-5 * joules


def test_counters_add_up() -> None:
    """Package and memory, or two sockets."""
    found = lasting(0.01, 20.0, 5.0, 1.0)
    assert found.value == pytest.approx(0.26, rel=1e-4)
    assert found.method == "fake 0, fake 1, fake 2"


def test_it_states_its_source_and_what_is_in_it() -> None:
    """Which counters, how often, how long, and that an idle machine draws power too."""
    found = lasting(0.01, 20.0, 5.0, max_time_s=9.0)
    assert found.method == "fake 0, fake 1"
    assert found.notes == ("8 windows of 1 s by fake 0, fake 1, idle power included",)
    assert len(found.samples) == 8


@pytest.mark.parametrize(("confidence", "windows"), [(0.9, 5), (0.95, 6), (0.99, 8), (0.999, 11)])
def test_there_are_as_many_windows_as_the_confidence_needs(confidence: float, windows: int) -> None:
    """All of equal length, one more to warm up, within the time that was given."""
    found, clock = scripted(
        itertools.repeat(0.01), of_power(20.0), confidence=confidence, max_time_s=6.0
    )
    assert len(found.samples) == windows
    assert clock.time_s == pytest.approx(6.0, abs=0.01 * (windows + 2))


def test_the_first_window_warms_up() -> None:
    """What it used is not in the samples."""
    calls = itertools.chain([0.9], itertools.repeat(0.1))
    found, _ = scripted(calls, of_power(10.0), max_time_s=9.0)
    assert len(found.samples) == 8
    assert found.samples == pytest.approx([1.0] * 8, rel=1e-4)


def test_the_interval_is_that_of_the_median_over_windows() -> None:
    """A machine that draws more now and then makes it wide, and moves the value little."""
    # One call a window: two of eight windows take twice as long, at ten watts.
    calls = [1.0, *[1.0] * 3, 2.0, *[1.0] * 3, 2.0]
    found, _ = scripted(calls, of_power(10.0), max_time_s=9.0)
    assert found.value == pytest.approx(10.0)
    assert (found.lower, found.upper) == pytest.approx((10.0, 20.0), rel=1e-4)


@pytest.mark.parametrize("counters", [1, 2])
def test_the_interval_is_wider_by_the_step_of_each_counter(counters: int) -> None:
    """A reading may be a step behind the truth; many calls share it."""
    found = lasting(0.25, *[10.0] * counters, step_j=0.5, max_time_s=9.0)
    assert found.samples == (2.5 * counters,) * 8
    of_a_call_j = 0.5 * counters / 4
    assert found.lower == found.value - of_a_call_j
    assert found.upper == found.value + of_a_call_j


def test_no_call_gains_energy() -> None:
    """A step that is larger than what was seen makes the lower end zero, not less."""
    found = lasting(0.01, 10.0, step_j=5.5)
    assert found.lower == 0.0
    assert found.upper >= 0.1


@given(
    st.floats(0.5, 1000.0), st.floats(0.001, 2.0), st.sampled_from([1e-6, 1e-3, 0.06, 1.0, 10.0])
)
def test_the_truth_is_in_the_interval_or_nothing_is_claimed(
    power_w: float, duration_s: float, step_j: float
) -> None:
    """However coarse the counter, nobody is told a wrong number."""
    found = lasting(duration_s, power_w, step_j=step_j)
    if not found.unmeasured:
        slack = 1 + 1e-9
        assert found.lower / slack <= power_w * duration_s <= found.upper * slack


def updated_every(period_s: float, duration_s: float) -> Measurement:
    """Measure by a counter of 100 W that moves at once by what a whole period took."""

    def updated(clock: FakeClock) -> list[FakeCounter]:
        return [FakeCounter(100.0, clock.now_s, 1e-3, resolution_s=period_s)]

    return scripted(itertools.repeat(duration_s), updated)[0]


@pytest.mark.parametrize("period_s", [0.001, 0.1, 0.3])
@pytest.mark.parametrize("duration_s", [0.0007, 0.011, 0.13])
def test_a_counter_that_is_updated_now_and_then_tells_nothing_wrong(
    duration_s: float, period_s: float
) -> None:
    """Real ones move every millisecond or every tenth of a second, by more than their step."""
    found = updated_every(period_s, duration_s)
    assert found.lower <= 100.0 * duration_s <= found.upper


@pytest.mark.parametrize(("duration_s", "period_s"), [(0.011, 0.02), (0.061, 0.1)])
def test_windows_in_step_with_the_updates_of_a_counter_tell_nothing_wrong(
    duration_s: float, period_s: float
) -> None:
    """Then each window gains the same, and all are wrong by the same part of an update."""
    found = updated_every(period_s, duration_s)
    assert found.lower <= 100.0 * duration_s <= found.upper


def test_a_counter_that_is_updated_less_than_once_a_window_is_unmeasured() -> None:
    """It seems to stand still."""
    assert updated_every(1.0, 0.01).unmeasured


@pytest.mark.parametrize(
    ("power_w", "step_j"), [(10.0, 100.0), (10.0, 9.0), (1e-9, 1e-6), (0.0, 1e-6)]
)
def test_a_counter_too_coarse_for_the_window_is_unmeasured(power_w: float, step_j: float) -> None:
    """One window in which it did not move is enough: zero joules would be a pass."""
    found = lasting(0.01, power_w, step_j=step_j)
    assert found.unmeasured
    assert (found.value, found.lower, found.upper, found.samples) == (None, None, None, ())
    assert found.reason.startswith("fake 0 did not move in 0.56 s (its step is ")
    assert found.remedy == "give it longer: --nnscale-max-time"
    assert found.missing == ""


def test_the_remedy_for_a_coarse_counter_helps() -> None:
    """It moves in every window of a longer time."""
    assert lasting(0.01, 10.0, step_j=9.0, max_time_s=5).unmeasured
    found = lasting(0.01, 10.0, step_j=9.0, max_time_s=50)
    assert found.lower <= 0.1 <= found.upper


def test_a_counter_that_stands_still_beside_one_that_moves_is_unmeasured() -> None:
    """Its joules are unknown, not zero: the docstring says of one that it measures nothing."""
    assert lasting(0.01, 20.0, 0.0).unmeasured


def test_no_counters_at_all_are_unmeasured() -> None:
    """The sum of nothing is no measurement."""
    assert lasting(0.01).unmeasured


def test_a_counter_that_goes_backwards_is_unmeasured() -> None:
    """Negative joules are no joules."""
    assert lasting(0.01, -5.0).unmeasured


def test_a_device_without_a_counter_says_why_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And that the machine lacks energy, which --nnscale-require may demand."""
    asked: list[str] = []

    def find(device: str) -> None:
        asked.append(device)
        raise CannotMeasure("no counter here", remedy="buy one")

    monkeypatch.setattr(energy, "find_counters", find)
    found = measure_energy(pytest.fail, device="cuda:1")
    assert found.unmeasured
    assert found.value is None
    assert found.reason == "no counter here"
    assert found.remedy == "buy one"
    assert found.missing == "energy"
    assert asked == ["cuda:1"]


def test_the_counters_of_the_device_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the table of meters, with its effort, named after what was observed."""
    clock = FakeClock(itertools.repeat(0.01))
    gpu = {"cuda:1": of_power(20.0)(clock)}
    monkeypatch.setattr(energy, "WallClock", {"cuda:1": clock}.get)
    monkeypatch.setattr(energy, "find_counters", gpu.get)
    seen = Observation("Net", repeat=clock.work, device="cuda:1")
    found = measure(Metric.ENERGY, seen, effort=Effort(max_time_s=1.2, confidence=0.9))
    assert found.value == pytest.approx(0.2, rel=1e-3)
    assert (found.subject, len(found.samples)) == ("Net", 5)
    assert clock.time_s == pytest.approx(1.2, abs=0.07)


@dataclass
class FailingCounter(FakeCounter):
    """A counter that is lost after some readings."""

    readings: int = 4

    def read_j(self) -> float:
        self.readings -= 1
        if self.readings < 0:
            raise CannotMeasure("NVML gives no energy: GPU is lost", remedy="reset it")
        return super().read_j()


@pytest.mark.parametrize("readings", [0, 1, 7, 17])
def test_a_counter_that_is_lost_is_the_reason(readings: int) -> None:
    """Half a measurement is none, and this machine does not lack a counter."""
    found, _ = scripted(
        itertools.repeat(0.01),
        lambda clock: [FailingCounter(20.0, clock.now_s, readings=readings)],
    )
    assert found.unmeasured
    assert (found.reason, found.remedy) == ("NVML gives no energy: GPU is lost", "reset it")
    assert found.missing == ""


@pytest.mark.parametrize("number", [1, 100, 400])
def test_a_call_that_raises_is_unmeasured(number: int) -> None:
    """In the warm-up or in any window: its error is the reason."""
    clock, calls = FakeClock(itertools.repeat(0.01)), itertools.count(1)

    def call() -> None:
        clock.work()
        if next(calls) == number:
            raise ValueError("an iterator at its end")

    found = measure_energy(call, counters=of_power(20.0)(clock), clock=clock)
    assert found.unmeasured
    assert found.reason == "the call cannot be repeated: ValueError: an iterator at its end"
    assert found.remedy == "hand the nnscale fixture a call that can run many times"


def test_an_interrupt_passes_through() -> None:
    """Control-C is not a measurement."""
    clock = FakeClock([])

    def call() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_energy(call, counters=of_power(20.0)(clock), clock=clock)


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

    counters = find_counters("cpu", powercap_root=tmp_path)
    found = measure_energy(call, counters=counters, clock=clock, max_time_s=1.35)
    assert found.method == "RAPL package-0"
    assert found.value == pytest.approx(0.3)
    assert found.lower <= 0.3 <= found.upper
    assert 0 < found.upper - found.lower < 5e-3
    # More was used than the counter's range, so that it did wrap.
    assert next(calls) * 300_000 > 2 * range_uj
