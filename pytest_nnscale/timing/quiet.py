"""Quiet: a measurement waits until no test runs on this machine, and then no test starts.

A test holds while it runs: setup, body and teardown. A measurement lends its own test's hold, so that
two that ask at once do not wait for each other, shuts the gate through which all come in, waits
until all others have ended, and measures; then it waits, as a test that starts does, until nobody
measures, and takes back what it lent. Whoever waits keeps the gate shut, so that it cannot be
overtaken for ever by tests that come and go; and at the gate the first to come is the first to pass.

Which bear each other: any number of tests; or measurements on different GPUs; or one measurement on
the CPU alone. A test may use any device, and all of them use the CPU, from which a GPU's kernels are
launched, so every measurement waits for every test. Two measurements on two GPUs each keep one core
busy with launching, and may go on side by side. One on the CPU uses all cores, and bears nobody.

Below a test there may be another session, in this process or in one that it starts, which knows whose
test it runs in (`ancestry.py`). Its tests need no leave while that test itself holds, and
its measurements lend that test's hold together with their own.

All waiting ends (`patience.py`). A measurement then is none, and a test goes on; whoever measures
meanwhile is left a note, and throws away what it has found. What is not seen: sessions that take no
turns, what any session does before its first test, those of other users or with another TMPDIR, and
whatever else this machine is doing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.timing.ancestry import VARIABLE as VARIABLE
from pytest_nnscale.timing.ancestry import inherited, told_below
from pytest_nnscale.timing.board import Board, Queue
from pytest_nnscale.timing.hold import TEST, Hold, kind_of
from pytest_nnscale.timing.patience import Patience
from pytest_nnscale.timing.processes import ancestors

if TYPE_CHECKING:
    from filelock import BaseFileLock

_WENT_ON = "{what} went on before it had ended, after waiting {waited_s:g} s"
_STOPPED = "{what} was interrupted before it had ended"
_INSIDE = "a session below it measured for itself"
_NOT_HELD = "the other tests of this session were not held off"
_LONG_S = 10.0  # a wait that a report is told of
_SHORT = 20  # what a file system may take that has no long names


class Quiet:
    """What the tests and the measurements of one session take turns by; waits in seconds.

    `tell` hears what a long wait is for, and "" when it has ended.
    """

    def __init__(
        self,
        max_wait_s: float = 600.0,
        *,
        folder: Path | None = None,
        kind_of: Callable[[str], str] = kind_of,
        tell: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._max_wait_s = max_wait_s
        self._kind_of = kind_of
        self._tell = tell
        self._what = "a test"
        self._outlasted: set[str] = set()
        self._notes: list[str] = []
        self.refusal: CannotMeasure | None = None  # why nothing can be measured in this session
        found, self._chain = inherited()
        # Once and for all: a test may change TMPDIR, and would be held in one place, measured in another.
        self._board: Board | None = None
        try:
            place = folder or found
            self._board = Board.of_user() if place is None else Board(place)
        except CannotMeasure as error:
            self.refusal = error

    @contextmanager
    def testing(self, what: str) -> Iterator[None]:
        """Hold measurements off while a test runs, once those that go on have ended.

        A test never fails for want of a lock. But nobody sees it then: `refusal` says why, and from
        then on this session measures nothing.
        """
        with ExitStack() as stack:
            self._hold_test(what, stack)
            yield

    @contextmanager
    def measuring(self, device: str) -> Iterator[None]:
        """Hold tests off while a device is measured, once those that run have ended.

        CannotMeasure, on entering or on leaving, says why what is measured would not count.
        """
        board, mine = self._opened(), Hold.new(self._kind_of(device), self._what)
        if not self._chain and "PYTEST_XDIST_WORKER" in os.environ:
            self._notes.append(_NOT_HELD)
        with (
            self._adopted(board),
            self._lent(board, mine),
            self._alone(board, mine),
            self._below(board, mine),
        ):
            yield

    @contextmanager
    def lending(self) -> Iterator[None]:
        """Let the test's own hold not count, such as while somebody looks at it in a debugger."""
        with ExitStack() as stack:
            with suppress(CannotMeasure):
                stack.enter_context(self._lent(self._opened(), Hold.new(TEST, self._what)))
            yield

    def take_notes(self) -> tuple[str, ...]:
        """Return what is to be said of the measurements since this was last asked."""
        notes = tuple(dict.fromkeys(self._notes))
        self._notes.clear()
        return notes

    def _opened(self) -> Board:
        if self._board is None or self.refusal is not None:
            assert self.refusal is not None
            raise CannotMeasure(self.refusal.reason, remedy=self.refusal.remedy)
        self._board.open()
        return self._board

    def _hold_test(self, what: str, stack: ExitStack) -> None:
        """Take the hold of a test, by a shorter name where the whole one cannot be locked."""
        for told in (what, what[-_SHORT:]):
            self._what = told
            with suppress(CannotMeasure), ExitStack() as attempt:
                try:
                    self._come_in(Hold.new(TEST, told), attempt)
                except CannotMeasure as error:
                    why = error
                    raise
                stack.push(attempt.pop_all())
                return
        self.refusal = self.refusal or why

    def _come_in(self, mine: Hold, stack: ExitStack) -> None:
        """Take the hold of a test, and leave to the stack what gives it back."""
        board = self._opened()
        stack.enter_context(self._adopted(board))
        with self._waiting() as patience, closing(Queue(board)) as queue:
            for _ in patience.pauses():
                if self._is_covered(board):
                    with ExitStack() as attempt:
                        attempt.callback(board.free, board.take_new(mine.file_name))
                        if self._is_covered(board):  # still, now that a measurement could see ours
                            stack.push(attempt.pop_all())
                            break
                gate = queue.pass_gate()
                if gate is None:
                    self._look(board, mine, patience)
                    continue
                try:
                    stack.callback(board.free, board.take_new(mine.file_name))
                    if self._wait(board, mine, patience):
                        self._disturb(board, _WENT_ON, patience)
                    break
                finally:
                    board.release(gate)
            else:
                stack.callback(board.free, board.take_new(mine.file_name))
                self._disturb(board, _WENT_ON, patience)
        stack.enter_context(self._below(board, mine))

    def _is_covered(self, board: Board) -> bool:
        """Tell whether the hold of a test below which we run keeps measurements out."""
        return any(board.counts(hold) for hold in self._chain)

    @contextmanager
    def _lent(self, board: Board, mine: Hold) -> Iterator[None]:
        """Let the holds that this process runs below not count until it has measured."""
        lent = ExitStack()
        hurried = False
        try:
            for hold in self._chain:
                name = f"lent,{hold.token},{mine.token}"
                lent.callback(board.free, board.take_new(name))
                if hold.kind != TEST:
                    board.note(hold, _INSIDE)
            yield
        except (KeyboardInterrupt, SystemExit):
            hurried = True
            raise
        finally:
            with lent, suppress(CannotMeasure):
                if self._chain:
                    self._take_back(board, lent, hurried=hurried)

    def _take_back(self, board: Board, lent: ExitStack, *, hurried: bool) -> None:
        if hurried:
            lent.close()
            self._disturb(board, _STOPPED)
            return
        mine = Hold.new(TEST, self._what)
        with self._waiting() as patience:
            gate = self._pass_gate(board, mine, patience)
            try:
                late = gate is None or self._wait(board, mine, patience)
                lent.close()
                if late:
                    self._disturb(board, _WENT_ON, patience)
            finally:
                if gate is not None:
                    board.release(gate)

    @contextmanager
    def _alone(self, board: Board, mine: Hold) -> Iterator[None]:
        """Take the hold of a measurement, and see at its end that nobody came in meanwhile."""
        with ExitStack() as stack:
            with self._waiting(suspects=True) as patience:
                gate = self._pass_gate(board, mine, patience)
                if gate is None:
                    raise self._too_long(board.in_the_way(mine), patience)
                try:
                    stack.callback(board.free, board.take_new(mine.file_name))
                    in_the_way = self._wait(board, mine, patience)
                finally:
                    board.release(gate)
                if in_the_way:
                    raise self._too_long(in_the_way, patience)
                if patience.waited_s >= _LONG_S:
                    self._notes.append(f"waited {patience.waited_s:.0f} s for {patience.first}")
            stack.callback(board.read_note, mine)
            yield
            why = board.read_note(mine)
            if why:
                raise CannotMeasure(
                    f"the machine was not quiet: {why}",
                    remedy="measure in one of the two, not in both"
                    if why == _INSIDE
                    else "make the call shorter, or let others wait longer: --nnscale-max-wait",
                )

    @contextmanager
    def _waiting(self, *, suspects: bool = False) -> Iterator[Patience]:
        with closing(
            Patience(
                self._max_wait_s, outlasted=self._outlasted, tell=self._tell, suspects=suspects
            )
        ) as patience:
            yield patience

    def _pass_gate(self, board: Board, mine: Hold, patience: Patience) -> BaseFileLock | None:
        """Wait for our turn at the gate, and shut it; None where time is up before."""
        with closing(Queue(board)) as queue:
            for _ in patience.pauses():
                gate = queue.pass_gate()
                if gate is not None:
                    return gate
                self._look(board, mine, patience)
        return None

    def _look(self, board: Board, mine: Hold, patience: Patience) -> None:
        if patience.due:
            patience.look(board.in_the_way(mine))

    def _wait(self, board: Board, mine: Hold, patience: Patience) -> list[Hold]:
        """Wait at the gate for all that do not bear us; return those still there when time is up."""
        in_the_way: list[Hold] = []
        for _ in patience.pauses():
            # Whoever leaves a note from here on has come in after the look, those before are seen.
            board.read_note(mine)
            in_the_way = board.in_the_way(mine, at_gate=True)
            patience.look(in_the_way)
            if not in_the_way:
                break
        patience.close(in_the_way)
        return in_the_way

    def _disturb(self, board: Board, how: str, patience: Patience | None = None) -> None:
        """Tell those that measure that a test has come in all the same."""
        why = how.format(what=self._what, waited_s=round(patience.waited_s, 1) if patience else 0)
        for hold in board.in_the_way(Hold.new(TEST, self._what)):
            board.note(hold, why)

    @contextmanager
    def _adopted(self, board: Board) -> Iterator[None]:
        """Take the holds of the processes above for our own, where no variable told of any."""
        before = self._chain
        if not before:
            above = ancestors()
            self._chain = [hold for hold in board.holds() if hold.pid in above]
        try:
            yield
        finally:
            self._chain = before

    @contextmanager
    def _below(self, board: Board, mine: Hold) -> Iterator[None]:
        """Let sessions that start meanwhile know what they run below."""
        before = self._chain
        self._chain = [*before, mine]
        try:
            with told_below(board.folder, self._chain):
                yield
        finally:
            self._chain = before

    def _too_long(self, in_the_way: Sequence[Hold], patience: Patience) -> CannotMeasure:
        patience.close(in_the_way)
        named = ", ".join(map(str, in_the_way[:3]))
        more = f" and {len(in_the_way) - 3} more" if len(in_the_way) > 3 else ""
        if patience.idle is not None:
            return CannotMeasure(
                f"waited {patience.waited_s:.0f} s for a quiet machine, and {patience.idle} computes "
                "nothing: it seems to wait for something that this test holds",
                remedy="hold no lock that another test needs while a model is measured; a test that "
                "only sleeps looks the same: run it apart",
            )
        named = f"{named or 'others that wait'}{more}"
        if patience.in_vain:
            return CannotMeasure(
                f"an earlier wait for a quiet machine was in vain, and still there: {named}",
                remedy="let it end first",
            )
        return CannotMeasure(
            f"waited {round(patience.waited_s, 1):g} s for a quiet machine, and still there: {named}",
            remedy="let it end first, or wait longer: --nnscale-max-wait",
        )
