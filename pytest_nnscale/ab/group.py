"""A process with all that it starts: a group that is gone when it is left."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from pytest_nnscale.ab.stopping import held_back

# From being asked to end to being ended.
_PATIENCE_S = 3.0
_PAUSE_S = 0.01
# Inherited by whatever is started, and so found where a process has left the group.
_MARK = "NNSCALE_AB_GROUP"


class Group:
    """A command in a session of its own, which a Ctrl-C in ours does not reach; POSIX only.

    What it prints goes to a file. Leaving the block ends whatever of it still runs; on Linux also what
    has left the session for one of its own.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        *,
        pipes: Sequence[int] = (),
    ) -> None:
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the group
        self._output: bytes | None = None
        self._mark = f"{_MARK}={secrets.token_hex(16)}"
        try:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env={**environment, _MARK: self._mark.partition("=")[2]},
                stdin=subprocess.DEVNULL,
                stdout=self._printed,
                stderr=subprocess.STDOUT,
                pass_fds=pipes,
                start_new_session=True,
            )
        except BaseException:
            self._printed.close()
            raise

    def __enter__(self) -> Group:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    @property
    def has_ended(self) -> bool:
        """Whether the first process has ended."""
        if self._process.returncode is None and hasattr(os, "waitid"):
            # Not reaped: as long as it is there, so is the number of its group.
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self._process.pid, options) is not None
        return self._process.poll() is not None

    def wait(self, most_s: float | None = None) -> int | None:
        """Wait for the end of the first process, and return its status; None where time is up."""
        until_s = None if most_s is None else time.monotonic() + most_s
        while not self.has_ended:
            if until_s is not None and time.monotonic() >= until_s:
                return None
            time.sleep(_PAUSE_S)
        self.end()
        return self._process.returncode

    def end(self) -> None:
        """End every process of the group: asked first, then killed."""
        if self._output is not None:
            return
        with held_back():
            if not self.has_ended:
                self._signal(signal.SIGTERM)
                until_s = time.monotonic() + _PATIENCE_S
                while not self.has_ended and time.monotonic() < until_s:
                    time.sleep(_PAUSE_S)
            self._signal(signal.SIGKILL)
            self._end_those_who_left()
            self._process.wait()
            self._printed.seek(0)
            self._output = self._printed.read()
            self._printed.close()

    def output(self) -> str:
        """Return what was printed, once it has ended."""
        return (self._output or b"").decode(errors="replace")

    def _end_those_who_left(self) -> None:
        for file in Path("/proc").glob("[0-9]*/environ"):
            # Of somebody else's processes nothing can be read, and none of them is meant.
            with suppress(OSError):
                if os.fsencode(self._mark) in file.read_bytes().split(b"\0"):
                    os.kill(int(file.parent.name), signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
