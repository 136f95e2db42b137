"""The board: lock files in a folder of the user, each locked while what it names goes on.

The operating system drops the lock of a process that is killed, so that a hold ends with its owner. All
that is known of a hold is in the name of its file, which nobody ever takes again::

    gate                               whoever comes in passes here; who waits keeps it shut
    ticket,<time>,<token>              who waits at the gate goes in the order of coming
    hold,<kind>,<token>,<where>,<who>,<what>
                                       a test, or a measurement on some device
    lent,<token>,<token>               the hold of the first token does not count for now
    note,<token>                       that measurement was disturbed, and how

The folder belongs to one user and nobody else can write there: in a folder for all, users could hold
each other off, and the kernel may refuse to open another user's file. So the sessions of one user take
turns, in all checkouts and environments that have the same TMPDIR.
"""

from __future__ import annotations

import logging
import os
import stat
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.timing.hold import Hold

if TYPE_CHECKING:
    from filelock import BaseFileLock

GATE = "gate"
TICKET = "ticket,"
_LONGEST_PAUSE_S = 0.1


class Board:
    """The folder in which holds stand; CannotMeasure says that nothing can be locked there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of_user(cls) -> Board:
        """Name the user's folder in the one for temporary files; CannotMeasure where there is none."""
        try:
            place = Path(tempfile.gettempdir())
        except OSError as error:
            raise CannotMeasure(
                f"other tests cannot be held off, since there is no folder for locks: {error}",
                remedy="let TMPDIR name a local folder that you can write to",
            ) from error
        if os.name == "nt":  # there that folder is the user's already
            return cls(place / "pytest-nnscale")
        if _is_makeshift(place):
            raise CannotMeasure(
                "other tests cannot be held off, since the only folder for temporary files is the "
                f"working directory, {place}, where sessions elsewhere do not look",
                remedy="let TMPDIR name a local folder that you can write to",
            )
        return cls(place / f"pytest-nnscale-{os.getuid()}")

    def open(self) -> None:
        """Make the folder where there is none, and see that nobody else can write there."""
        with self._errors():
            with suppress(FileExistsError):
                self.folder.mkdir(mode=0o700)
            found = self.folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise self._refusal("it is no folder")
        if os.name != "nt" and (found.st_uid != os.getuid() or found.st_mode & 0o022):
            raise self._refusal("others than you can write there")

    def take(self, name: str, *, until_s: float = 0.0) -> BaseFileLock | None:
        """Lock a file, made where there is none; None where another has it until then."""
        from filelock import FileLock, Timeout

        with self._errors(), _unlogged():
            # A soft lock would outlive a process that is killed.
            lock = FileLock(self.folder / name, fallback_to_soft=False)
            for _ in pauses(until_s):
                try:
                    lock.acquire(blocking=False)
                except Timeout:
                    continue
                return lock
        return None

    def take_new(self, name: str) -> BaseFileLock:
        """Lock a file of a new name, where only a passing look can be in the way."""
        lock = self.take(name, until_s=time.monotonic() + 10)
        if lock is None:
            raise self._refusal(f"another has {name}")
        return lock

    def release(self, lock: BaseFileLock) -> None:
        """Drop a lock, and leave its file to the next."""
        with suppress(OSError), _unlogged():
            lock.release()

    def free(self, lock: BaseFileLock) -> None:
        """Drop a lock, and remove its file."""
        path = Path(lock.lock_file)
        # Before it is dropped: its owner may be about to lock it, and would lock a file without a name.
        with suppress(OSError):
            path.unlink()
        self.release(lock)
        if os.name == "nt":  # where no open file can be removed
            with suppress(OSError):
                path.unlink()

    def is_taken(self, name: str) -> bool:
        """Tell whether a process has a file locked; what a killed one has left is removed."""
        with self._errors():
            if not (self.folder / name).exists():
                return False
        lock = self.take(name)
        if lock is None:
            return True
        self.free(lock)
        return False

    def in_the_way(self, mine: Hold, *, at_gate: bool = False) -> list[Hold]:
        """Return the holds that do not bear another, among those that count."""
        names = self._names()
        holds = [Hold(name) for name in names if Hold.is_meant(name)]
        lent = self._lent(names, at_gate=at_gate)
        others = [hold for hold in holds if hold.token not in {mine.token, *lent}]
        if at_gate:
            self._tidy(names, {hold.token for hold in holds})
        return [each for each in others if not each.bears(mine) and self.is_taken(each.file_name)]

    def holds(self) -> list[Hold]:
        """Return all holds that somebody has."""
        holds = [Hold(name) for name in self._names() if Hold.is_meant(name)]
        return [hold for hold in holds if self.is_taken(hold.file_name)]

    def _tidy(self, names: list[str], known: set[str]) -> None:
        """Remove what killed processes have left: tickets, and notes for measurements that are gone."""
        for name in names:
            if name.startswith(TICKET):
                self.is_taken(name)
            elif name.startswith("note,") and name.partition(",")[2] not in known:
                with suppress(OSError):
                    (self.folder / name).unlink()

    def is_first(self, ticket: str) -> bool:
        """Tell whether nobody waits at the gate who came before; an empty ticket is that of a newcomer."""
        before = [n for n in self._names() if n.startswith(TICKET) and (not ticket or n < ticket)]
        return not any(self.is_taken(name) for name in before)

    def counts(self, hold: Hold) -> bool:
        """Tell whether a hold is taken and, as far as can be seen, not lent."""
        return hold.token not in self._lent(self._names()) and self.is_taken(hold.file_name)

    def note(self, hold: Hold, why: str) -> None:
        """Leave word that a measurement was disturbed."""
        with suppress(OSError):
            self._note_on(hold).write_text(why, encoding="utf-8")

    def read_note(self, hold: Hold) -> str:
        """Return how a measurement was disturbed, and forget it; empty where it was not."""
        with self._errors():
            try:
                why = self._note_on(hold).read_text(encoding="utf-8", errors="replace")
            except FileNotFoundError:
                return ""
            self._note_on(hold).unlink(missing_ok=True)
        return why

    def _note_on(self, hold: Hold) -> Path:
        return self.folder / f"note,{hold.token}"

    def _lent(self, names: list[str], *, at_gate: bool = False) -> set[str]:
        """Return the tokens of what is lent.

        Only at the gate are files that a killed process left told from others: were two to look at one
        at the same time, each would take the other for its owner.
        """
        lent = [name for name in names if name.startswith("lent,")]
        return {name.split(",")[1] for name in lent if not at_gate or self.is_taken(name)}

    def _names(self) -> list[str]:
        with self._errors():
            return [path.name for path in self.folder.iterdir()]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, NotImplementedError) as error:
            raise self._refusal(str(error)) from error

    def _refusal(self, why: str) -> CannotMeasure:
        return CannotMeasure(
            f"other tests cannot be held off, since nothing can be locked in {self.folder}: {why}",
            remedy="let TMPDIR name a local folder that you can write to, or remove what is there",
        )


class Queue:
    """A place among those that wait at the gate, of whom the first to come is the first to pass."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._ticket = ""
        self._lock: BaseFileLock | None = None

    def pass_gate(self) -> BaseFileLock | None:
        """Shut the gate behind us, if it is open and our turn; else take a ticket, and return None."""
        gate = self._board.take(GATE) if self._board.is_first(self._ticket) else None
        if gate is None and self._lock is None:
            self._ticket = f"{TICKET}{time.monotonic_ns():020d},{uuid.uuid4().hex[:16]}"
            self._lock = self._board.take_new(self._ticket)
        return gate

    def close(self) -> None:
        """Leave the queue."""
        if self._lock is not None:
            self._board.free(self._lock)
        self._lock = None


def _is_makeshift(place: Path) -> bool:
    """Tell whether no place for temporary files was found: Python then takes the working directory."""
    named = [os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
    meant = {os.path.realpath(name) for name in (*named, "/tmp", "/var/tmp", "/usr/tmp") if name}
    where = os.path.realpath(place)
    return where == os.path.realpath(".") and where not in meant


def pauses(until_s: float) -> Iterator[None]:
    """Yield at once, and again after ever longer pauses until `time.monotonic()` says so much."""
    pause_s = 0.001
    while True:
        yield
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            return
        time.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep our locks out of the log, which may be captured as that of the user's test."""
    ours = threading.get_ident()

    def is_not_ours(_record: logging.LogRecord) -> bool:
        return threading.get_ident() != ours

    logger = logging.getLogger("filelock")
    logger.addFilter(is_not_ours)
    try:
        yield
    finally:
        logger.removeFilter(is_not_ours)
