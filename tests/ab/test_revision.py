"""Revisions: resolved by git, checked out beside the tree, and removed without a trace."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_nnscale.ab.owner import Owner
from pytest_nnscale.ab.revision import Repository
from pytest_nnscale.errors import BadOption, CannotCompare
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


def test_a_name_that_is_a_path_leads_to_the_two_dashes(project: Project) -> None:
    """`nnscale ab main tests/` means them."""
    project.commit({"part/tests/a.py": "1"})
    with pytest.raises(BadOption, match=r"but a path: .*, nnscale ab BASE -- tests/$"):
        Repository(project.root / "part").resolve("tests/")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("origin/topic", "git fetch --depth=1 origin topic:refs/remotes/origin/topic"),
        ("HEAD~1", "git fetch --unshallow"),
    ],
)
def test_a_shallow_clone_is_told_what_to_fetch(
    project: Project, tmp_path: Path, name: str, told: str
) -> None:
    """It is what CI makes; what it is told works."""
    project.commit({"a.py": "1"})
    project.git("branch", "topic")
    project.commit({"a.py": "2"})
    project.git("clone", "--quiet", "--depth=1", project.root.as_uri(), str(tmp_path / "clone"))
    repository = Repository(tmp_path / "clone")
    with pytest.raises(BadOption, match=rf"a shallow clone, .*: {told}$"):
        repository.resolve(name)
    subprocess.run(told.split(), cwd=repository.root, check=True, capture_output=True)
    assert repository.resolve(name) == project.git("rev-parse", "topic")


@pytest.fixture
def nested(project: Project, tmp_path: Path) -> tuple[Project, Path]:
    """Return a project with a submodule in a submodule, and where the first of them lies."""
    inner, outer = Project(tmp_path / "inner"), Project(tmp_path / "outer")
    inner.commit({"in.py": "1"})
    add = ("-c", "protocol.file.allow=always", "submodule", "--quiet", "add")
    outer.git(*add, str(inner.root), "lib")
    outer.commit({"out.py": "1"})
    project.git(*add, str(outer.root), "ext/outer")
    project.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init",
                "--recursive")  # fmt: skip
    project.commit({"a.py": "1"})
    return project, project.root / "ext" / "outer"


def test_submodules_are_checked_out_at_their_own_commit(
    nested: tuple[Project, Path], tmp_path: Path
) -> None:
    """Those of the working tree stay where they are, with their changes; nothing is left."""
    project, outer = nested
    first = project.git("rev-parse", "HEAD")
    shutil.rmtree(tmp_path / "outer")  # nothing can be fetched
    (outer / "out.py").write_text("2")
    git = ["git", "-c", "user.name=S", "-c", "user.email=s@example.org"]
    subprocess.run([*git, "commit", "-qam", "two"], cwd=outer, check=True)
    (outer / "out.py").write_text("3")
    config = (project.root / ".git" / "config").read_text()
    repository, path = Repository(project.root), tmp_path / "base"
    repository.check_out(first, path)
    assert (path / "ext/outer/out.py").read_text() == "1"
    assert (path / "ext/outer/lib/in.py").read_text() == "1"
    repository.remove(path)
    assert not path.exists()
    assert not [*(project.root / ".git").rglob("worktrees/*")]
    assert (outer / "out.py").read_text() == "3"
    assert (project.root / ".git" / "config").read_text() == config


def test_a_submodule_that_the_working_tree_does_not_have_is_left_out(
    nested: tuple[Project, Path], tmp_path: Path
) -> None:
    """Nothing is fetched: it is not needed there either."""
    project, _ = nested
    project.git("submodule", "--quiet", "deinit", "--force", "ext/outer")
    repository, path = Repository(project.root), tmp_path / "base"
    repository.check_out(project.git("rev-parse", "HEAD"), path)
    assert [*(path / "ext/outer").iterdir()] == []
    repository.remove(path)
    assert project.worktrees == []


def test_a_submodule_without_the_commit_is_refused(
    nested: tuple[Project, Path], tmp_path: Path
) -> None:
    """With what to fetch."""
    project, outer = nested
    elsewhere = "1234567890" * 4
    project.git("update-index", "--cacheinfo", f"160000,{elsewhere},ext/outer")
    project.git("commit", "--quiet", "--message", "ahead")
    repository, path = Repository(project.root), tmp_path / "base"
    with pytest.raises(
        CannotCompare, match=rf"ext/outer has no commit 123456789012.*: git -C {outer} fetch"
    ):
        repository.check_out("main", path)
    repository.remove(path)
    assert project.worktrees == []


@pytest.mark.parametrize("listed", ["a submodule", "a git directory elsewhere"])
def test_the_trees_have_the_working_tree_among_them(
    nested: tuple[Project, Path], tmp_path: Path, listed: str
) -> None:
    """Git names the git directory in its stead."""
    project, root = nested
    if listed != "a submodule":
        root = tmp_path / "apart"
        project.git("init", "--quiet", f"--separate-git-dir={tmp_path / 'kept'}", str(root))
    assert root in Repository(root).trees()


def test_a_bare_repository_is_no_tree(project: Project, tmp_path: Path) -> None:
    """Its worktrees may lie in it, beside what is not the project's."""
    project.commit({"a.py": "1"})
    project.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare"))
    subprocess.run(
        ["git", "worktree", "add", "--quiet", "it"], cwd=tmp_path / "bare", check=True,
        capture_output=True,
    )  # fmt: skip
    root = tmp_path / "bare" / "it"
    assert Repository(root).trees() == (root,)


def test_what_git_refuses_later_is_told_in_its_words(project: Project) -> None:
    """The repository may break meanwhile."""
    project.commit({"a.py": "1"})
    repository = Repository(project.root)
    (project.root / ".git" / "HEAD").write_text("broken")
    for ask in (repository.trees, repository.remove_orphans):
        with pytest.raises(CannotCompare, match=r"^git (worktree|rev-parse): fatal: "):
            ask()


def test_the_worktree_of_a_command_that_was_killed_is_removed(
    nested: tuple[Project, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With those of its submodules, and the folder around; one whose command runs is let be."""
    project, _ = nested
    repository = Repository(project.root)
    for name, pid in (("nnscale-ab-killed", 2**22 + 1), ("nnscale-ab-runs", os.getpid())):
        monkeypatch.setattr(Owner, "ours", lambda pid=pid: Owner(pid, "here"))
        repository.check_out("main", tmp_path / name / "nnscale-ab-base")
    monkeypatch.setattr(Owner, "ours", lambda: Owner(1, "here"))
    Repository(project.root).remove_orphans()
    assert not (tmp_path / "nnscale-ab-killed").exists()
    assert (tmp_path / "nnscale-ab-runs/nnscale-ab-base/ext/outer/lib/in.py").exists()
    assert len([*(project.root / ".git").rglob("worktrees/*/gitdir")]) == 3
