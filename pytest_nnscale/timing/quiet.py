"""Quiet: a measurement waits until no test runs on this machine, and then no test starts.

A test holds while it runs: setup, body and teardown. A measurement lends its own test's hold, so that
two that ask at once do not wait for each other, shuts the gate through which all come in, waits
until all others have ended, and measures; then it waits, as a test that starts does, until nobody
measures, and takes back what it lent. Whoever waits keeps the gate shut, so that it cannot be
overtaken for ever by tests that come and go.

Which bear each other: any number of tests; or measurements on different GPUs; or one measurement on
the CPU alone. A test may use any device, and all of them use the CPU, from which a GPU's kernels are
launched, so every measurement waits for every test. Two measurements on two GPUs each keep one core
busy with launching, and may go on side by side. One on the CPU uses all cores, and bears nobody.

Below a test there may be another session, in this process or in one that it starts. An environment
variable tells it whose test it runs in. Its tests need no leave while that test itself holds, and
its measurements lend that test's hold together with their own.

All waiting ends after `max_wait_s`. A measurement then is none, and a test goes on; whoever measures
meanwhile is left a note, and throws away what it has found. What is not seen: sessions without
sampled budgets, what any session does before its first test, those of other users, and whatever else
this machine is doing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.timing.board import GATE, Board, pauses
from pytest_nnscale.timing.hold import TEST, Hold, kind_of

# In JSON, the folder and the holds of the tests below which a process runs, the outermost first.
VARIABLE = "PYTEST_NNSCALE_HOLDS"
_WENT_ON = "{what} went on before it had ended, after waiting {waited_s:g} s"
_INSIDE = "a session below it measured for itself"


class Quiet:
    """What the tests and the measurements of one session take turns by; waits in seconds."""

    def __init__(
        self,
        max_wait_s: float = 600.0,
        *,
        folder: Path | None = None,
        kind_of: Callable[[str], str] = kind_of,
    ) -> None:
        self._max_wait_s = max_wait_s
        self._kind_of = kind_of
        found, self._chain = _inherited()
        self._folder = folder or found
        self._what = "a test"

    @contextmanager
    def testing(self, what: str) -> Iterator[None]:
        """Hold measurements off while a test runs, once those that go on have ended.

        A test never fails for want of a lock: no measurement could take one either.
        """
        self._what = what
        with ExitStack() as stack:
            with suppress(CannotMeasure):
                self._come_in(Hold.new(TEST, what), stack)
            yield

    @contextmanager
    def measuring(self, device: str) -> Iterator[None]:
        """Hold tests off while a device is measured, once those that run have ended.

        CannotMeasure, on entering or on leaving, says why what is measured would not count.
        """
        board, mine = self._board(), Hold.new(self._kind_of(device), self._what)
        with self._lent(board, mine), self._alone(board, mine), self._below(board, mine):
            yield

    def _board(self) -> Board:
        board = Board.of_user() if self._folder is None else Board(self._folder)
        board.open()
        return board

    def _come_in(self, mine: Hold, stack: ExitStack) -> None:
        """Take the hold of a test, and leave to the stack what gives it back."""
        board, until_s = self._board(), time.monotonic() + self._max_wait_s
        for _ in pauses(until_s):
            if self._is_covered(board):
                with ExitStack() as attempt:
                    attempt.callback(board.free, board.take_new(mine.file_name))
                    if self._is_covered(board):  # still, now that a measurement could see ours
                        stack.push(attempt.pop_all())
                        break
            gate = board.take(GATE)
            if gate is None:
                continue
            try:
                stack.callback(board.free, board.take_new(mine.file_name))
                if self._wait(board, mine, until_s):
                    self._disturb(board)
                break
            finally:
                board.release(gate)
        else:
            stack.callback(board.free, board.take_new(mine.file_name))
            self._disturb(board)
        stack.enter_context(self._below(board, mine))

    def _is_covered(self, board: Board) -> bool:
        """Tell whether the hold of a test below which we run keeps measurements out."""
        return any(board.counts(hold) for hold in self._chain)

    @contextmanager
    def _lent(self, board: Board, mine: Hold) -> Iterator[None]:
        """Let the holds that this process runs below not count until it has measured."""
        lent = ExitStack()
        try:
            for hold in self._chain:
                name = f"lent,{hold.token},{mine.token}"
                lent.callback(board.free, board.take_new(name))
                if hold.kind != TEST:
                    board.note(hold, _INSIDE)
            yield
        finally:
            with lent, suppress(CannotMeasure):
                if self._chain:
                    self._take_back(board, lent)

    def _take_back(self, board: Board, lent: ExitStack) -> None:
        until_s = time.monotonic() + self._max_wait_s
        gate = board.take(GATE, until_s=until_s)
        try:
            late = gate is None or self._wait(board, Hold.new(TEST, self._what), until_s)
            lent.close()
            if late:
                self._disturb(board)
        finally:
            if gate is not None:
                board.release(gate)

    @contextmanager
    def _alone(self, board: Board, mine: Hold) -> Iterator[None]:
        """Take the hold of a measurement, and see at its end that nobody came in meanwhile."""
        until_s = time.monotonic() + self._max_wait_s
        with ExitStack() as stack:
            gate = board.take(GATE, until_s=until_s)
            if gate is None:
                raise self._too_long(board.in_the_way(mine))
            try:
                stack.callback(board.free, board.take_new(mine.file_name))
                in_the_way = self._wait(board, mine, until_s)
            finally:
                board.release(gate)
            if in_the_way:
                raise self._too_long(in_the_way)
            stack.callback(board.read_note, mine)
            yield
            why = board.read_note(mine)
            if why:
                raise CannotMeasure(
                    f"the machine was not quiet: {why}",
                    remedy="make the call shorter, or let others wait longer: --nnscale-max-wait",
                )

    def _wait(self, board: Board, mine: Hold, until_s: float) -> list[Hold]:
        """Wait at the gate for all that do not bear us; return those still there when time is up."""
        in_the_way: list[Hold] = []
        for _ in pauses(until_s):
            # Whoever leaves a note from here on has come in after the look, those before are seen.
            board.read_note(mine)
            in_the_way = board.in_the_way(mine, at_gate=True)
            if not in_the_way:
                break
        return in_the_way

    def _disturb(self, board: Board) -> None:
        """Tell those that measure that a test has come in all the same."""
        why = _WENT_ON.format(what=self._what, waited_s=self._max_wait_s)
        for hold in board.in_the_way(Hold.new(TEST, self._what)):
            board.note(hold, why)

    @contextmanager
    def _below(self, board: Board, mine: Hold) -> Iterator[None]:
        """Let sessions that start meanwhile know what they run below."""
        before = os.environ.get(VARIABLE)
        self._chain = [*self._chain, mine]
        names = [hold.file_name for hold in self._chain]
        os.environ[VARIABLE] = json.dumps([str(board.folder), *names])
        try:
            yield
        finally:
            self._chain = self._chain[:-1]
            if before is None:
                os.environ.pop(VARIABLE, None)
            else:
                os.environ[VARIABLE] = before

    def _too_long(self, in_the_way: Sequence[Hold]) -> CannotMeasure:
        named = ", ".join(map(str, in_the_way[:3]))
        more = f" and {len(in_the_way) - 3} more" if len(in_the_way) > 3 else ""
        return CannotMeasure(
            f"waited {self._max_wait_s:g} s for a quiet machine, and still there: "
            f"{named or 'others that wait'}{more}",
            remedy="let it end first, or wait longer: --nnscale-max-wait",
        )


def _inherited() -> tuple[Path | None, list[Hold]]:
    """Return the holds below which this process runs, and the folder in which they stand."""
    try:
        folder, *names = json.loads(os.environ[VARIABLE])
    except (KeyError, TypeError, ValueError):
        return None, []
    return Path(folder), [Hold(name) for name in names if Hold.is_meant(name)]
