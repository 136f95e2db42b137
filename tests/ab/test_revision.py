"""Revisions: resolved by git, checked out beside the tree, and removed without a trace."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_nnscale.ab.revision import Repository
from pytest_nnscale.errors import BadOption, CannotCompare

if TYPE_CHECKING:
    from tests.ab.conftest import Project


def test_a_revision_is_any_name_of_a_commit(project: Project) -> None:
    """A branch, a tag, a distance, the beginning of a number."""
    first = project.commit({"a.py": "1"})
    project.git("tag", "--annotate", "v1", "--message", "one")
    second = project.commit({"a.py": "2"})
    repository = Repository(project.root)
    assert [repository.resolve(name) for name in ("HEAD~1", "v1", first[:8])] == [first] * 3
    assert repository.resolve("main") == second


@pytest.mark.parametrize("name", ["nowhere", "--all", "HEAD~9", ""])
def test_what_is_no_revision_is_refused(project: Project, name: str) -> None:
    """By its name; what looks like an option is none."""
    project.commit({"a.py": "1"})
    with pytest.raises(BadOption, match="is no commit of"):
        Repository(project.root).resolve(name)


def test_a_folder_in_no_repository_is_refused(tmp_path: Path) -> None:
    """In git's own words."""
    with pytest.raises(BadOption, match="not in a git repository"):
        Repository(tmp_path)


def test_a_folder_inside_is_known(project: Project) -> None:
    """The command may be started there."""
    project.commit({"part/a.py": "1"})
    repository = Repository(project.root / "part")
    assert (repository.root, repository.inside) == (project.root, Path("part"))


def test_a_commit_is_checked_out_and_removed(project: Project, tmp_path: Path) -> None:
    """The working tree, its branch and its changes stay as they are."""
    first = project.commit({"a.py": "1"})
    project.commit({"a.py": "2"})
    project.write({"a.py": "3", "new.py": ""})
    before = project.git("status", "--porcelain", "--branch")
    repository, path = Repository(project.root), tmp_path / "base"
    repository.check_out(first, path)
    assert (path / "a.py").read_text() == "1"
    assert len(repository.trees()) == 2
    (path / "a.py").write_text("built over")
    (path / "build.so").write_text("")
    repository.remove(path)
    assert not path.exists()
    assert project.worktrees == []
    assert project.git("status", "--porcelain", "--branch") == before
    assert (project.root / "a.py").read_text() == "3"


def test_what_is_not_there_is_removed_without_complaint(project: Project, tmp_path: Path) -> None:
    """It may be asked for before anything was made."""
    project.commit()
    Repository(project.root).remove(tmp_path / "never")
    assert project.worktrees == []


@pytest.mark.parametrize("left", ["locked", "without its files", "without its link"])
def test_a_worktree_that_git_was_killed_over_is_removed(
    project: Project, tmp_path: Path, left: str
) -> None:
    """In whatever state it was left."""
    first = project.commit({"a.py": "1"})
    repository, path = Repository(project.root), tmp_path / "base"
    repository.check_out(first, path)
    entry = next((project.root / ".git" / "worktrees").iterdir())
    if left == "locked":
        (entry / "locked").write_text("initializing")
    elif left == "without its link":
        (path / ".git").unlink()
    else:
        shutil.rmtree(path)
        (entry / "locked").write_text("initializing")
        (entry / "HEAD").unlink()
    repository.remove(path)
    assert not path.exists()
    assert project.worktrees == []


def test_worktrees_of_others_are_let_be(project: Project, tmp_path: Path) -> None:
    """Also one whose disk is not there just now, which pruning would forget."""
    first = project.commit({"a.py": "1"})
    project.git("worktree", "add", "--detach", str(tmp_path / "theirs"), first)
    (tmp_path / "theirs").rename(tmp_path / "unplugged")
    before = project.worktrees
    repository, path = Repository(project.root), tmp_path / "base"
    repository.check_out(first, path)
    (path / ".git").unlink()
    repository.remove(path)
    assert project.worktrees == before


def test_no_hook_of_the_repository_runs(project: Project, tmp_path: Path) -> None:
    """A checkout to measure is none to act upon."""
    first = project.commit({"a.py": "1"})
    hook = project.root / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    hook.chmod(0o755)
    Repository(project.root).check_out(first, tmp_path / "base")
    assert not (tmp_path / "ran").exists()


def test_git_is_not_led_astray_by_its_own_variables(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside a hook of another repository they are set."""
    first = project.commit({"a.py": "1"})
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert Repository(project.root).resolve("main") == first


def test_a_checkout_that_fails_says_why(project: Project, tmp_path: Path) -> None:
    """In git's own words."""
    first = project.commit({"a.py": "1"})
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "full").write_text("")
    with pytest.raises(CannotCompare, match="cannot check out") as caught:
        Repository(project.root).check_out(first, tmp_path / "base")
    assert "already exists" in caught.value.output


def test_the_state_of_the_tree_changes_with_its_code_alone(project: Project) -> None:
    """A tracked file, a new module; not what a run of the tests leaves behind."""
    project.commit({"a.py": "1", "data.txt": "", ".gitignore": "*.log\n"})
    repository = Repository(project.root)
    states = [repository.state()]
    for path, text, changes in [
        ("a.py", "2", True),
        ("a.py", "1", True),
        ("new.py", "1", True),
        ("new.py", "2", True),
        ("made.txt", "2", False),
        ("it.log", "2", False),
        ("data.txt", "2", True),
    ]:
        project.write({path: text})
        states.append(repository.state())
        assert (states[-1] != states[-2]) is changes, path
    assert states[2] == states[0]
