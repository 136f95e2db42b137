"""Git as a command: asked in a folder, and in that folder's repository alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pytest_nnscale.errors import CannotCompare

# Set while git runs a hook: they would lead each git below to the repository that runs it.
_LOCAL = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR",
          "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH")  # fmt: skip
# What is only looked at takes no lock that a commit of the user's could meet.
_QUIETLY = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}


class Refused(CannotCompare):
    """Git has exited with an error; `words` are its own."""

    def __init__(self, command: str, words: str) -> None:
        super().__init__(f"git {command}: {words}")
        self.words = words


def without_git(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what ties git to one repository."""
    return {name: value for name, value in environment.items() if name not in _LOCAL}


def ask_git(folder: Path, *words: str) -> str:
    """Return what git prints, run in a folder; Refused where it exits with an error."""
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=folder,
            env={**without_git(os.environ), **_QUIETLY},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            # Ctrl-C reaches a whole process group: a git that it kills leaves its locks behind.
            start_new_session=True,
            check=False,
        )
    except OSError as error:
        raise CannotCompare(f"git cannot be started: {error}") from error
    if done.returncode:
        named = next(word for i, word in enumerate(words) if not word.startswith("-")
                     and words[i - 1] != "-c")  # fmt: skip
        raise Refused(named, done.stderr.strip() or f"it exited with {done.returncode}")
    return done.stdout.rstrip("\n")
