"""What stands in for the meter of latency in a worker: the command says when to call, and how often."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nnscale import keys
from pytest_nnscale.ab.channel import Channel, Closed, Message
from pytest_nnscale.ab.threads import Threads
from pytest_nnscale.budget import Phase, Verdict
from pytest_nnscale.measurement import Measurement, Metric

if TYPE_CHECKING:
    from pytest_nnscale.timing.clock import Clock
    from pytest_nnscale.timing.conditions import Watch

# What is counted beside each call that is timed.
EXACT = (Metric.FLOPS, Metric.KERNELS, Metric.MEMORY, Metric.PARAMS, Metric.SIZE)
_TRACED = (
    "something follows every line of Python here, such as coverage or a debugger",
    "leave it out: nnscale ab BASE -- --no-cov",
)


class Command:
    """The other end of the channel; once it is gone the session ends."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def tell(self, message: Message) -> None:
        """Send a message."""
        try:
            self._channel.send(message)
        except Closed:
            pytest.exit("nnscale ab has ended", returncode=2)

    def hear(self) -> Message:
        """Wait for a message."""
        try:
            return self._channel.receive() or {}
        except Closed:
            pytest.exit("nnscale ab has ended", returncode=2)


class Timer:
    """Stands in for the meter of latency: the command says how often to call, and when.

    `flush_l2` empties a GPU's cache before each call.
    """

    def __init__(self, command: Command) -> None:
        self.flush_l2 = False
        self._command = command
        self._item: pytest.Item | None = None
        self._last: Callable[[], object] | None = None
        self._found: Measurement | None = None
        self._ordinal = 0
        self._about: Message = {}
        self._disturbed: dict[int, str] = {}
        self._threads = Threads()

    def begin(self, item: pytest.Item) -> None:
        """Begin with the first call of a test."""
        self._item, self._last, self._found, self._ordinal = item, None, None, 0
        self._disturbed = {}

    def __call__(
        self,
        call: Callable[[], object],
        *,
        quantile: float,  # noqa: ARG002 - whatever is asked, the two sides' medians are compared
        device: str,
    ) -> Measurement:
        """Time a call as the command says; a call with several budgets is timed once."""
        if self._found is not None and call == self._last:
            return self._found
        self._ordinal += 1
        self._last = call
        self._found = self._serve(call, {**self._about, "call": self._call(), "device": device})
        return self._found

    def about(self, phase: Phase, subject: str) -> None:
        """Note what is called next, and in which phase."""
        self._about = {"phase": phase, "subject": subject}

    def calls_with(self, verdicts: Sequence[Verdict]) -> list[Message]:
        """Return what was timed in a test, and what was counted of each call."""
        calls = []
        for ordinal in range(1, self._ordinal + 1):
            timed = [v for v in verdicts if v.measurement.method == _method(ordinal)]
            if not timed:
                continue  # it was timed, and then the test failed
            at = timed[0]
            exact = [
                v.measurement.to_dict()
                for v in verdicts
                if v.budget.metric in EXACT
                and (v.call, v.budget.phase) == (at.call, at.budget.phase)
            ]
            calls.append(
                {
                    "ordinal": ordinal,
                    "disturbed": self._disturbed.get(ordinal, ""),
                    "call": at.call,
                    "phase": at.budget.phase,
                    "subject": at.measurement.subject,
                    "exact": exact,
                }
            )
        return calls

    def _call(self) -> int:
        """Return which call of the fixture this is; 0 is the test's body, or its benchmark."""
        assert self._item is not None
        stash = self._item.stash
        caller = stash.get(keys.CALLER, None)
        if caller is None or caller.closed or stash.get(keys.BENCHMARKED, None) is not None:
            return 0
        return caller.calls + 1

    def _serve(self, call: Callable[[], object], which: Message) -> Measurement:
        from pytest_nnscale.timing.conditions import conditions
        from pytest_nnscale.timing.devices import clock_for

        if _is_followed():
            reason, remedy = _TRACED
            return Measurement.nothing(Metric.LATENCY, reason=reason, remedy=remedy)
        self._stop_timeout()
        clock = clock_for(which["device"], flush=self.flush_l2)
        self._command.tell({"is": "ready", "ordinal": self._ordinal, **which})
        with conditions(which["device"]) as watch:
            found = self._take(call, clock, watch)
        self._disturbed[self._ordinal] = watch.disturbed
        return found

    def _take(self, call: Callable[[], object], clock: Clock, watch: Watch) -> Measurement:
        """Time the call whenever the command says so, until it has enough."""
        from pytest_nnscale.garbage import collected_later

        found = Measurement.exact(Metric.LATENCY, 0, method=_method(self._ordinal))
        while True:
            told = self._command.hear()
            if told.get("do") != "time":
                return found
            try:
                with collected_later():
                    seconds = clock.times_s(call, calls=told["calls"], batches=told["samples"])
                watch.look()
                self._threads.come_to_rest()
            except Exception as error:
                reason = f"the call cannot be repeated: {type(error).__name__}: {error}"
                found = Measurement.nothing(Metric.LATENCY, reason=reason)
                self._command.tell({"is": "seconds", "seconds": None, "reason": reason})
            else:
                self._command.tell({"is": "seconds", "seconds": seconds})

    def _stop_timeout(self) -> None:
        """Stop the clock of pytest-timeout: a test that waits for its turn does not hang."""
        assert self._item is not None
        cancel = getattr(self._item.config.hook, "pytest_timeout_cancel_timer", None)
        if cancel is not None:
            cancel(item=self._item)


def _method(ordinal: int) -> str:
    return f"timed by turns, {ordinal}"


def _is_followed() -> bool:
    """Tell whether a tracer or a profiler is called for every line or call of Python."""
    if sys.gettrace() is not None or sys.getprofile() is not None:
        return True
    monitoring: Any = getattr(sys, "monitoring", None)  # since Python 3.12
    return monitoring is not None and any(
        monitoring.get_events(tool) for tool in range(6) if monitoring.get_tool(tool)
    )
