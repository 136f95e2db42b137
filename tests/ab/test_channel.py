"""The channel: whole messages over pipes, whatever pieces they come in, and a known end."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from pytest_nnscale.ab.channel import Channel, Closed


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    """Return the two ends of a channel."""
    one, other = os.pipe(), os.pipe()
    first, second = Channel(one[0], other[1]), Channel(other[0], one[1])
    yield first, second
    for end in (first, second):
        end.close()


def test_messages_arrive_in_their_order(ends: tuple[Channel, Channel]) -> None:
    """In both directions."""
    for number in range(3):
        ends[0].send({"n": number})
    ends[1].send({"text": "äöü\nnext"})
    assert [ends[1].receive() for _ in range(3)] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert ends[0].receive() == {"text": "äöü\nnext"}


def test_a_message_may_be_larger_than_a_pipe(ends: tuple[Channel, Channel]) -> None:
    """The modules of a large model are."""
    message = {"shares": ["x" * 100] * 20_000}
    sending = threading.Thread(target=ends[0].send, args=(message,))
    sending.start()
    assert ends[1].receive() == message
    sending.join()


def test_nothing_comes_within_a_time() -> None:
    """None says so; half a message is none."""
    reads, writes = os.pipe()
    channel = Channel(reads, writes)
    assert channel.receive(0.01) is None
    os.write(writes, b'{"half":')
    assert channel.receive(0.01) is None
    os.write(writes, b"1}\n")
    assert channel.receive(0.01) == {"half": 1}
    channel.close()


def test_the_end_of_the_other_side_is_told(ends: tuple[Channel, Channel]) -> None:
    """After what it still said; and nobody can be told anything any more."""
    ends[1].send({"last": True})
    ends[1].close()
    assert ends[0].receive() == {"last": True}
    with pytest.raises(Closed):
        ends[0].receive()
    with pytest.raises(Closed):
        ends[0].send({})


def test_what_json_has_no_word_for_is_refused(ends: tuple[Channel, Channel]) -> None:
    """Not a number is no number of seconds."""
    with pytest.raises(ValueError, match="JSON"):
        ends[0].send({"seconds": [float("nan")]})
