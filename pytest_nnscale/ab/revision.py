"""Revisions of a git repository, checked out beside the working tree for as long as it takes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from pytest_nnscale.ab.git import Refused, ask_git
from pytest_nnscale.ab.owner import Owner
from pytest_nnscale.ab.stopping import held_back
from pytest_nnscale.errors import BadOption, CannotCompare

_NO_HOOKS = ("-c", "core.hooksPath=/dev/null")


class _Submodule(NamedTuple):
    path: Path
    commit: str


class Repository:
    """The repository around a folder, asked through git itself."""

    def __init__(self, folder: Path) -> None:
        try:
            self.root = Path(ask_git(folder, "rev-parse", "--show-toplevel")).resolve()
        except Refused as error:
            raise BadOption(f"{folder} is not in a git repository: {error.words}") from error
        self.inside = folder.resolve().relative_to(self.root)
        # What was checked out of submodules, and where.
        self._below: list[tuple[Repository, Path]] = []

    def resolve(self, revision: str) -> str:
        """Return the full name of a commit; BadOption where there is none of that name."""
        try:
            return ask_git(
                self.root, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}"
            )
        except Refused as error:
            why = f"{revision!r} is no commit of {self.root}"
            raise BadOption(f"{why}{self._hint(revision) or f': {error.words}'}") from error

    def _hint(self, revision: str) -> str:
        """Return why a name may be no commit here, and what to do; nothing where that is unknown."""
        if revision and (self.root / self.inside / revision).exists():
            return (
                ", but a path: what goes to pytest follows two dashes, "
                f"nnscale ab BASE -- {revision}"
            )
        if ask_git(self.root, "rev-parse", "--is-shallow-repository") != "true":
            return ""
        remote, slash, branch = revision.partition("/")
        if slash and remote in ask_git(self.root, "remote").splitlines():
            fetch = f"git fetch --depth=1 {remote} {branch}:refs/remotes/{revision}"
        else:
            fetch = "git fetch --unshallow"
        return f", a shallow clone, which has no more than it was asked for: {fetch}"

    def trees(self) -> tuple[Path, ...]:
        """Return the roots of all trees that are checked out of it, this one among them."""
        found = {self.root: None}
        # For a submodule, or a git directory that lies elsewhere, git names that and not the tree.
        for block in ask_git(self.root, "worktree", "list", "--porcelain").split("\n\n"):
            first, *more = block.splitlines()
            if "bare" not in more:
                found[Path(first.removeprefix("worktree ")).resolve()] = None
        return tuple(found)

    def check_out(self, commit: str, path: Path) -> None:
        """Check a commit out into a worktree at a path that does not exist yet, or is empty.

        Submodules that the working tree has are checked out with it, at the commit that theirs is
        there, from the clones that are here: nothing is fetched. No hook of the repository runs.
        CannotCompare says why git could not.
        """
        try:
            ask_git(self.root, *_NO_HOOKS, "worktree", "add", "--detach", "--force", str(path),
                    commit)  # fmt: skip
            ask_git(self.root, "worktree", "lock", "--reason", Owner.ours().text, str(path))
        except Refused as error:
            raise CannotCompare(
                f"git cannot check out {commit[:12]} of {self.root}", output=error.words
            ) from error
        for submodule in self._submodules(commit):
            here = self.root / submodule.path
            if (here / ".git").exists():
                below = Repository(here)
                self._below.append((below, path / submodule.path))
                below._check_out_at(submodule, path / submodule.path)

    def _check_out_at(self, submodule: _Submodule, path: Path) -> None:
        commit = submodule.commit
        try:
            ask_git(self.root, "cat-file", "-e", f"{commit}^{{commit}}")
        except Refused as error:
            raise CannotCompare(
                f"the submodule {submodule.path} has no commit {commit[:12]} here, which the revision "
                f"needs: git -C {self.root} fetch"
            ) from error
        self.check_out(commit, path)

    def _submodules(self, commit: str) -> list[_Submodule]:
        found = []
        for entry in ask_git(self.root, "ls-tree", "-r", "-z", commit).split("\0"):
            about, _, name = entry.partition("\t")
            if about.startswith("160000 "):
                found.append(_Submodule(Path(name), about.split()[2]))
        return found

    def remove(self, path: Path) -> None:
        """Remove a worktree, also one that git was killed over, or that never came to be."""
        with held_back():
            for below, inner in self._below:
                if inner.is_relative_to(path):
                    below.remove(inner)
            try:
                # Twice: it is locked.
                ask_git(self.root, "worktree", "remove", "--force", "--force", str(path))
            except Refused:
                shutil.rmtree(path, ignore_errors=True)
                # Not by `git worktree prune`, which might take those of others for dead.
                for entry in self._entries():
                    if _place_of(entry) == path:
                        shutil.rmtree(entry, ignore_errors=True)

    def remove_orphans(self) -> None:
        """Remove the worktrees of commands that were killed before they could."""
        with held_back():
            for entry in self._entries():
                try:
                    owner = Owner.read((entry / "locked").read_text(encoding="utf-8"))
                except OSError:
                    continue
                path = _place_of(entry)
                if owner is not None and owner.is_gone and path is not None:
                    self.remove(path)
                    # The folder around both sides; a submodule's lies deeper, in one of theirs.
                    if path.parent.name.startswith("nnscale-ab-"):
                        shutil.rmtree(path.parent, ignore_errors=True)
            for line in ask_git(self.root, "ls-files", "--stage", "-z").split("\0"):
                here = self.root / line.partition("\t")[2]
                if line.startswith("160000 ") and (here / ".git").exists():
                    Repository(here).remove_orphans()

    def _entries(self) -> list[Path]:
        """Return the folders in which git keeps what it knows of worktrees."""
        common = self.root / ask_git(self.root, "rev-parse", "--git-common-dir")
        return [file.parent for file in common.glob("worktrees/*/gitdir")]


def _place_of(entry: Path) -> Path | None:
    """Return where a worktree is, by git's own entry for it."""
    try:
        return Path(
            (entry / "gitdir").read_text(encoding="utf-8", errors="surrogateescape").strip()
        ).parent
    except OSError:
        return None
