"""What the tests of ab share: small repositories, and what runs on the machine."""

from __future__ import annotations

import os
import subprocess
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest


class Project:
    """A git repository in a temporary folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.root.mkdir(exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main", ".")
        self.git("config", "user.name", "Somebody")
        self.git("config", "user.email", "somebody@example.org")

    def git(self, *words: str) -> str:
        """Run git in it and return what it prints."""
        done = subprocess.run(
            ["git", *words], cwd=self.root, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def write(self, files: Mapping[str, str]) -> None:
        """Write files by their paths."""
        for path, text in files.items():
            target = self.root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(textwrap.dedent(text), encoding="utf-8")

    def commit(self, files: Mapping[str, str] | None = None) -> str:
        """Write files, commit all, and return the name of the commit."""
        self.write(files or {})
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "a step")
        return self.git("rev-parse", "HEAD")

    @property
    def worktrees(self) -> list[str]:
        """What git knows of worktrees besides the first, in its folder and in its list."""
        folder = self.root / ".git" / "worktrees"
        kept = [entry.name for entry in folder.iterdir()] if folder.exists() else []
        listed = self.git("worktree", "list", "--porcelain").splitlines()
        return kept + [line for line in listed if line.startswith("worktree ")][1:]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return an empty repository, in an environment that leads to no other."""
    for name in [name for name in os.environ if name.startswith(("GIT_", "PYTEST_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return Project(tmp_path / "project")
