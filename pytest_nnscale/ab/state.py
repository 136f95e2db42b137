"""The state of a working tree: while it is measured, its code must stay what it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_nnscale.ab.git import ask_git
from pytest_nnscale.errors import CannotCompare

# Of files that the commit does not have only code counts: a test may write others.
_CODE = {".py", ".pyx", ".pxd", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".rs"}
_DIFF = ("diff", "--no-ext-diff", "--no-renames", "--ignore-submodules=none")


def state_of(root: Path, commit: str) -> dict[str, str]:
    """Return what the files are in which a working tree is not what a commit is.

    Relative to a commit that stays, not to HEAD: a branch that is switched changes the state, a commit
    of what lies there does not. CannotCompare has git's words.
    """
    return {name: _content(root, name) for name in _differing(root, commit)}


def watch(root: Path, commit: str) -> Callable[[], None]:
    """Return what raises CannotCompare where a working tree is no longer what it is now."""
    before = state_of(root, commit)

    def check() -> None:
        after = state_of(root, commit)
        changed = [n for n in sorted({*before, *after}) if before.get(n) != after.get(n)]
        if changed:
            more = f" and {len(changed) - 1} more" if changed[1:] else ""
            raise CannotCompare(
                f"the working tree was edited while it was measured ({changed[0]}{more}), and some "
                "restarts ran other code than others: commit it and name the commit, nnscale ab BASE "
                "HEAD, or wait"
            )

    return check


def _differing(root: Path, commit: str) -> Iterator[str]:
    yield from _split(ask_git(root, *_DIFF, "--diff-filter=a", "--name-only", "-z", commit, "--"))
    added = ask_git(root, *_DIFF, "--diff-filter=A", "--name-only", "-z", commit, "--")
    unknown = ask_git(root, "ls-files", "--others", "--exclude-standard", "-z")
    for name in {*_split(added), *_split(unknown)}:
        if Path(name).suffix in _CODE:
            yield name


def _split(names: str) -> list[str]:
    return [name for name in names.split("\0") if name]


def _content(root: Path, name: str) -> str:
    path = root / name
    try:
        if path.is_symlink():
            return f"link to {path.readlink()}"
        if path.is_dir():
            return _content_of_submodule(root, name)
        with path.open("rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return "gone"


def _content_of_submodule(root: Path, name: str) -> str:
    # In a folder that is empty git would answer for the repository around it.
    if not (root / name / ".git").exists():
        return "not checked out"
    inner = ask_git(root / name, "rev-parse", "HEAD")
    files = sorted(state_of(root / name, inner).items())
    return f"{inner} {files}"
