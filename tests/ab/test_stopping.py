"""Signals: the first one stops, and what clears up after it is left alone."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from pytest_nnscale.ab.stopping import Stopped, held_back, stopping

ASKING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Have no signal ignored, as some are where these tests run under nohup or in the background."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in ASKING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ASKING)
def test_the_first_signal_stops(number: signal.Signals) -> None:
    """It carries its number, and the handlers are as before."""
    before = [signal.getsignal(each) for each in ASKING]
    with pytest.raises(Stopped) as caught, stopping():
        signal.raise_signal(number)
    assert caught.value.number == number
    assert [signal.getsignal(each) for each in ASKING] == before


def test_later_signals_change_nothing() -> None:
    """Somebody presses Ctrl-C again while it is clearing up."""
    cleared = []

    @stopping()
    def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            cleared.append(True)

    with pytest.raises(Stopped):
        work()
    assert cleared


def test_an_ignored_signal_stays_ignored() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_are_held_back_to_the_end_of_a_block() -> None:
    """What it does is done as a whole."""
    done = []

    @stopping()
    def work() -> None:
        with held_back():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            done.append(True)
        done.append(False)

    with pytest.raises(Stopped) as caught:
        work()
    assert done == [True]
    assert caught.value.number == signal.SIGTERM


def test_without_a_signal_all_goes_on() -> None:
    """In the main thread as in another, where signals cannot be handled."""
    went_on = []

    def go_on() -> None:
        with stopping(), held_back():
            went_on.append(True)

    go_on()
    thread = threading.Thread(target=go_on)
    thread.start()
    thread.join()
    assert went_on == [True, True]
