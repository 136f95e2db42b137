"""Clocks: the wall's goes on, waits for the device, and the scripted one stands still."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from pytest_nnscale.timing import clock
from pytest_nnscale.timing.clock import Batch, FakeClock, WallClock


@pytest.fixture
def waited_for(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return the devices that were waited for; each wait ends two seconds later on the clock.

    There are three GPUs, of which the first two are used.
    """
    waits: list[object] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: waits.append(device))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch._C, "_cuda_hasPrimaryContext", lambda index: index < 2, raising=False)
    timer = SimpleNamespace(
        perf_counter=lambda: 2.0 * len(waits), get_clock_info=time.get_clock_info
    )
    monkeypatch.setattr(clock, "time", timer)
    return waits


def test_the_wall_clock_sees_the_time_that_passes() -> None:
    """Seconds are seconds."""
    wall = WallClock()
    start_s = wall.now_s()
    time.sleep(0.01)
    assert 0.01 <= wall.now_s() - start_s < 1


def test_the_wall_clock_never_goes_back() -> None:
    """A duration is never negative."""
    wall = WallClock()
    readings = [wall.now_s() for _ in range(1000)]
    assert readings == sorted(readings)


def test_the_wall_clock_states_its_tick() -> None:
    """That of the clock which it reads."""
    assert WallClock().resolution_s == time.get_clock_info("perf_counter").resolution > 0


def test_reading_waits_for_the_device_first(waited_for: list[object]) -> None:
    """What is still in the queue has been asked for, and counts as done."""
    assert WallClock("cuda").now_s() == 2.0 * len(waited_for) > 0
    assert waited_for[0] is None  # the current one


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_cpu_is_not_waited_for(device: str, waited_for: list[object]) -> None:
    """Its work is done when the call returns."""
    assert WallClock(device).now_s() == 0.0
    assert waited_for == []


def test_the_gpu_that_is_waited_for_is_the_one_that_works(waited_for: list[object]) -> None:
    """The current one may be idle while cuda:1 computes."""
    WallClock("cuda:1").now_s()
    assert torch.device("cuda", 1) in [torch.device(w) for w in waited_for if w is not None]


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:1", "cuda:2"])
def test_every_gpu_that_is_used_is_waited_for_and_no_other(
    device: str, waited_for: list[object]
) -> None:
    """A model may end on another one; to wait for one that nobody uses would take memory on it."""
    WallClock(device).now_s()
    waits = {torch.device(w) for w in waited_for if w is not None}
    asked = {torch.device(device)} if ":" in device else set()
    assert waits == {torch.device("cuda", 0), torch.device("cuda", 1)} | asked


def test_batches_of_several_calls_are_timed_in_their_turns() -> None:
    """In the order that was asked for, each divided by its own number of calls."""
    fake = FakeClock([1.0, 2.0, 3.0, 7.0])
    turns = [Batch(fake.work, 1), Batch(fake.work, 2), Batch(fake.work, 1)]
    assert fake.turns_s(turns) == [1.0, 2.5, 7.0]


def test_scripted_time_passes_in_work_alone() -> None:
    """Reading it costs nothing, and each work takes the next duration."""
    fake = FakeClock([0.5, 2.0])
    seen = []
    for work in (None, None, fake.work, None, fake.work):
        if work is not None:
            work()
        seen.append(fake.now_s())
    assert seen == [0.0, 0.0, 0.5, 0.5, 2.5]


def test_a_script_at_its_end_is_an_error() -> None:
    """A test that works more often than it says is wrong."""
    fake = FakeClock([1.0], time_s=10.0)
    fake.work()
    with pytest.raises(StopIteration):
        fake.work()
    assert fake.now_s() == 11.0
