"""Threads of a worker: waited for until they rest, and given up where they never do."""

from __future__ import annotations

import pytest

from pytest_nnscale.ab import threads as room
from pytest_nnscale.ab.threads import Threads


class FakeTime:
    """A clock that only sleep moves, and threads that spin until some time."""

    def __init__(self, spin_until_s: float, cores: float = 1.0) -> None:
        self.now_s, self._until_s, self._cores = 0.0, spin_until_s, cores

    def perf_counter(self) -> float:
        return self.now_s

    def process_time(self) -> float:
        return self._cores * min(self.now_s, self._until_s)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.mark.parametrize("spin_s", [0.0, 0.01, 0.2])
def test_it_waits_as_long_as_they_spin(monkeypatch: pytest.MonkeyPatch, spin_s: float) -> None:
    """As long as LLVM's runtime does, too, and hardly longer."""
    time = FakeTime(spin_s)
    monkeypatch.setattr(room, "time", time)
    assert Threads().come_to_rest()
    assert spin_s <= time.now_s <= spin_s + 0.0025


def test_a_thread_that_sleeps_most_of_the_time_is_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a core takes nothing from anybody."""
    time = FakeTime(100.0, cores=0.1)
    monkeypatch.setattr(room, "time", time)
    assert Threads().come_to_rest()


def test_threads_that_never_rest_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some waits of half a second, and none after that."""
    time = FakeTime(100.0)
    monkeypatch.setattr(room, "time", time)
    threads = Threads()
    assert not any(threads.come_to_rest() for _ in range(50))
    assert 1.5 <= time.now_s < 1.6


def test_threads_that_rest_now_and_then_are_always_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only those that were waited for in vain three times on end are given up."""
    threads = Threads()
    for _ in range(5):
        for spin_s in (100.0, 100.0, 0.01):
            time = FakeTime(spin_s)
            monkeypatch.setattr(room, "time", time)
            assert threads.come_to_rest() is (spin_s < 1)
            assert time.now_s > 0
