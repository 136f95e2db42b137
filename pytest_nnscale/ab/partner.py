"""A worker as the command sees it: started in a tree, told what to do, ended with all it started."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from pytest_nnscale.ab.channel import PROTOCOL, VARIABLE, Channel, Closed, Message
from pytest_nnscale.ab.group import Group
from pytest_nnscale.ab.origins import Stranger
from pytest_nnscale.ab.tree import Tree, environment
from pytest_nnscale.errors import CannotCompare, CannotMeasure

# How often to look whether it is still there, while it is waited for.
_LOOK_S = 0.5
_TO_END_S = 30.0
# After as long as this, and again after as long, it is said that it is still waited for.
_TELL_S = 30.0


class Place(NamedTuple):
    """All it takes to start a worker: a tree, and what was found out about it.

    `leading` are the folders that lead the import path, `origins` the file that says where modules may
    come from; without one they may come from anywhere.
    """

    tree: Tree
    leading: tuple[Path, ...] = ()
    origins: Path | None = None


class Died(CannotCompare):
    """A worker has ended before its time; `how` is what there is to know of its end."""

    def __init__(self, reason: str, *, how: str, output: str) -> None:
        super().__init__(reason, output=output)
        self.how = how


class Partner:
    """One worker; leaving the block ends it.

    `arguments` are pytest's. `files`, where known, are those of the tests that will run: nothing else
    is collected then. `waits` is told, now and then, which side has been waited for, and how long.
    """

    def __init__(
        self,
        place: Place,
        arguments: Sequence[str],
        files: Sequence[str] = (),
        *,
        waits: Callable[[str, float], None] = lambda _side, _seconds: None,
    ) -> None:
        self.tree = place.tree
        self.threads: int | None = None
        self._waits = waits
        # For what pytest would otherwise leave in the project: it goes with the worker.
        self._scratch = tempfile.TemporaryDirectory(prefix="nnscale-ab-worker-")
        down, up = os.pipe(), os.pipe()
        theirs, ours = (down[0], up[1]), (up[0], down[1])
        self._channel = Channel(*ours)
        tree = place.tree
        settings = {
            "pipes": theirs,
            "origins": str(place.origins or ""),
            "files": list(files),
            "scratch": self._scratch.name,
        }
        words = [tree.python, "-m", "pytest", "-p", "pytest_nnscale.ab.worker", *arguments]
        variables = {**environment(place.leading, tree.caches), VARIABLE: json.dumps(settings)}
        try:
            self._group = Group(words, tree.folder, variables, pipes=theirs)
        except BaseException:
            self._channel.close()
            self._scratch.cleanup()
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)

    def __enter__(self) -> Partner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.close()
        self._group.end()
        self._scratch.cleanup()

    def collected(self) -> Message:
        """Return what it has collected; CannotCompare where it could not."""
        found = self._hear(("collected",), "its tests cannot be collected")
        if found["protocol"] != PROTOCOL:
            raise CannotCompare(
                f"{self.tree.side} has another version of pytest-nnscale, which cannot be led from "
                "here: install the same in both environments"
            )
        self._refuse(found["stranger"])
        return found

    def run(self, tests: Sequence[str]) -> None:
        """Have it run some tests, in this order."""
        self._tell({"do": "run", "tests": list(tests)})

    def advance(self) -> Message:
        """Return what it comes to next: a call that is `ready`, or a test that is `tested`."""
        return self._hear(("ready", "tested"), "it ended in the middle of a test")

    def take(self, samples: int, *, calls: int) -> Sequence[float]:
        """Return the seconds per call of some batches of calls, made now."""
        self._tell({"do": "time", "samples": samples, "calls": calls})
        found = self._hear(("seconds",), "it ended while it was timed")
        if found["seconds"] is None:
            raise CannotMeasure(f"{self.tree.side}: {found['reason']}")
        seconds: list[float] = found["seconds"]
        return seconds

    def go_on(self) -> None:
        """Have it go on with its test."""
        self._tell({"do": "next"})

    def finish(self) -> None:
        """Wait until its session is over, and see that it was its own tree's to the end."""
        found = self._hear(("ended",), "its session did not come to its end")
        self._refuse(found["stranger"])
        self.threads = found["threads"]
        self._group.wait(_TO_END_S)

    def _refuse(self, stranger: Sequence[str] | None) -> None:
        if stranger is not None:
            module, file = Stranger(*stranger)
            raise CannotCompare(
                f"{self.tree.side} ({self.tree.name}) would measure code that is not its own: "
                f"{module} was imported from {file}, not from {self.tree.root}; "
                "lead the import path by PYTHONPATH, build in place with --setup, or give each side "
                "an environment of its own with --base-python and --head-python"
            )

    def _tell(self, message: Message) -> None:
        try:
            self._channel.send(message)
        except Closed:
            raise self._gone("it ended unasked") from None

    def _hear(self, wanted: Sequence[str], otherwise: str) -> Message:
        begun_s = told_s = time.monotonic()
        try:
            while True:
                message = self._channel.receive(_LOOK_S)
                if message is not None:
                    break
                # What it forked may hold the pipe open.
                if self._group.has_ended:
                    raise Closed
                now_s = time.monotonic()
                if now_s - told_s >= _TELL_S:
                    told_s = now_s
                    self._waits(self.tree.side, now_s - begun_s)
        except Closed:
            raise self._gone(otherwise) from None
        if message["is"] not in wanted:
            raise self._gone(otherwise)
        return message

    def _gone(self, what: str) -> Died:
        # It may be about to say why.
        how = _ending_of(self._group.wait(_TO_END_S))
        self._group.end()
        return Died(
            f"{self.tree.side} ({self.tree.name}): {what}: it {how}",
            how=how,
            output=self._group.output(),
        )


def _ending_of(status: int | None) -> str:
    """Say how a process has ended, by its status; one that had to be ended has none."""
    if status is None:
        return "said nothing that makes sense, and did not end"
    if status >= 0:
        return f"exited with {status}"
    try:
        name = f" ({signal.Signals(-status).name})"
    except ValueError:  # one of the real-time signals
        name = ""
    return f"was killed by signal {-status}{name}"
