"""Revisions of a git repository, checked out beside the working tree for as long as it takes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pytest_nnscale.ab.stopping import held_back
from pytest_nnscale.errors import BadOption, CannotCompare

# Set while git runs a hook: they would lead each git below to the repository that runs it.
_LOCAL = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR",
          "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH")  # fmt: skip


def without_git(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what ties git to one repository."""
    return {name: value for name, value in environment.items() if name not in _LOCAL}


class Repository:
    """The repository around a folder, asked through git itself."""

    def __init__(self, folder: Path) -> None:
        try:
            self.root = Path(_git(folder, "rev-parse", "--show-toplevel")).resolve()
        except _Refused as error:
            raise BadOption(f"{folder} is not in a git repository: {error}") from error
        self.inside = folder.resolve().relative_to(self.root)

    def resolve(self, revision: str) -> str:
        """Return the full name of a commit; BadOption where there is none of that name."""
        try:
            return _git(
                self.root, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}"
            )
        except _Refused as error:
            raise BadOption(f"{revision!r} is no commit of {self.root}: {error}") from error

    def trees(self) -> tuple[Path, ...]:
        """Return the roots of all trees that are checked out of it, this one among them."""
        lines = _git(self.root, "worktree", "list", "--porcelain").splitlines()
        named = (line.removeprefix("worktree ") for line in lines if line.startswith("worktree "))
        return tuple(Path(name).resolve() for name in named)

    def check_out(self, commit: str, path: Path) -> None:
        """Check a commit out into a worktree at a path that does not exist yet.

        No hook of the repository runs. CannotCompare says why git could not.
        """
        try:
            _git(self.root, "-c", "core.hooksPath=/dev/null", "worktree", "add", "--detach",
                 "--force", str(path), commit)  # fmt: skip
        except _Refused as error:
            raise CannotCompare(f"git cannot check out {commit[:12]}", output=str(error)) from error

    def state(self) -> str:
        """Return what changes when a file of the working tree is edited that git does not ignore.

        Of files that git does not know only those of Python count: a test may write others.
        """
        changes = hashlib.sha256(os.fsencode(_git(self.root, "diff", "HEAD", "--no-ext-diff")))
        unknown = _git(self.root, "ls-files", "--others", "--exclude-standard", "-z", "*.py")
        for name in sorted(filter(None, unknown.split("\0"))):
            try:
                changes.update(os.fsencode(name) + (self.root / name).read_bytes())
            except OSError:
                continue  # gone by now
        return changes.hexdigest()

    def remove(self, path: Path) -> None:
        """Remove a worktree, also one that git was killed over, or that never came to be."""
        with held_back():
            try:
                # Twice: it is locked while it is being made.
                _git(self.root, "worktree", "remove", "--force", "--force", str(path))
            except _Refused:
                shutil.rmtree(path, ignore_errors=True)
                common = self.root / _git(self.root, "rev-parse", "--git-common-dir")
                # Not by `git worktree prune`, which might take those of others for dead.
                for entry in common.glob("worktrees/*/gitdir"):
                    if Path(entry.read_text(encoding="utf-8").strip()).parent == path:
                        shutil.rmtree(entry.parent, ignore_errors=True)


class _Refused(Exception):
    """Git has exited with an error, in its own words."""


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=folder,
            env=without_git(os.environ),
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
        raise _Refused(done.stderr.strip() or f"git {words[0]} exited with {done.returncode}")
    return done.stdout.rstrip("\n")
