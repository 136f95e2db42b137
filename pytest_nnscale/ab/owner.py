"""Who has made a worktree: one that was killed leaves it, and the next command clears it up."""

from __future__ import annotations

import os
import re
import socket
from typing import NamedTuple

_TEXT = re.compile(r"nnscale ab, process (\d+) on (\S+)\s*")


class Owner(NamedTuple):
    """A process of a machine."""

    pid: int
    host: str

    @classmethod
    def ours(cls) -> Owner:
        """Return this process."""
        return cls(os.getpid(), socket.gethostname() or "localhost")

    @classmethod
    def read(cls, text: str) -> Owner | None:
        """Return the owner that `text` names; None where it is not of our making."""
        found = _TEXT.fullmatch(text)
        return cls(int(found[1]), found[2]) if found else None

    @property
    def text(self) -> str:
        """The owner as git keeps it, for the reason of a lock."""
        return f"nnscale ab, process {self.pid} on {self.host}"

    @property
    def is_gone(self) -> bool:
        """Whether it surely does not run any more: of another machine's nothing is known."""
        if self.host != Owner.ours().host:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # somebody else's
        return False
