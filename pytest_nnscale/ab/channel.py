"""A channel between the command and a worker: JSON, a line a message, over two pipes.

A worker says what it has found and waits; the command says what to do next.

::

    worker to command
        collected  what was collected, and what the worker is: see `worker.py`
        ready      a call of a test is warm and waits: which call, of what, in which phase, where
        seconds    the answer to `time`: seconds per call, or why there are none
        tested     how a test ended, and what was counted in it
        ended      the session is over
    command to worker
        run        the tests to run, in this order
        time       time some batches of calls now
        next       go on with the test
"""

from __future__ import annotations

import json
import os
import selectors
from typing import Any

# Raised with every change of what is said, since the two sides may have different versions.
PROTOCOL = 2
# Where a worker finds its settings, JSON: its pipes, and what it has to know of its tree.
VARIABLE = "PYTEST_NNSCALE_AB"

Message = dict[str, Any]


class Closed(Exception):
    """The other end has closed its pipe."""


class Channel:
    """One end: two file descriptors, which are closed with it."""

    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes = reads, writes
        self._open = True
        self._rest = b""

    def send(self, message: Message) -> None:
        """Send a message; Closed where nobody listens any more."""
        data = json.dumps(message, allow_nan=False).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._writes, data) :]
        except OSError as error:
            raise Closed(str(error)) from error

    def receive(self, wait_s: float | None = None) -> Message | None:
        """Return the next message; None where none came within `wait_s`.

        Closed where none will come any more.
        """
        while b"\n" not in self._rest:
            if wait_s is not None:
                with selectors.DefaultSelector() as selector:
                    selector.register(self._reads, selectors.EVENT_READ)
                    if not selector.select(wait_s):
                        return None
            data = os.read(self._reads, 1 << 16)
            if not data:
                raise Closed("end of the pipe")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        message: Message = json.loads(line)
        return message

    def close(self) -> None:
        """Close both pipes; the other end reads their end."""
        if self._open:
            self._open = False  # by then the numbers may be somebody else's
            os.close(self._reads)
            os.close(self._writes)
