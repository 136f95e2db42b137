"""The state of a working tree: an edit and a switched branch change it, a commit does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nnscale.ab.state import state_of, watch
from pytest_nnscale.errors import CannotCompare
from tests.ab.conftest import Project


def test_the_state_changes_with_the_code_alone(project: Project) -> None:
    """A tracked file, a new module; not what a run of the tests leaves behind."""
    commit = project.commit({"a.py": "1", "data.txt": "", ".gitignore": "*.log\n"})
    states = [state_of(project.root, commit)]
    for path, text, changes in [
        ("a.py", "2", True),
        ("a.py", "1", True),
        ("new.py", "1", True),
        ("new.py", "2", True),
        ("kernel.cu", "2", True),
        ("made.txt", "2", False),
        ("it.log", "2", False),
        ("data.txt", "2", True),
    ]:
        project.write({path: text})
        states.append(state_of(project.root, commit))
        assert (states[-1] != states[-2]) is changes, path
    assert states[2] == states[0]


def test_a_branch_that_is_switched_is_an_edit(project: Project) -> None:
    """Both are clean; what is measured is another code."""
    project.commit({"a.py": "1"})
    project.git("branch", "topic")
    commit = project.commit({"a.py": "2"})
    unchanged = watch(project.root, commit)
    unchanged()
    project.git("checkout", "--quiet", "topic")
    with pytest.raises(CannotCompare, match=r"was edited while it was measured \(a.py\)"):
        unchanged()


def test_a_commit_of_what_lies_there_is_none(project: Project) -> None:
    """No file was touched, new ones and what a test wrote among them."""
    commit = project.commit({"a.py": "1", "gone.py": "1"})
    project.write({"a.py": "2", "new.py": "1", "made.txt": "1"})
    (project.root / "gone.py").unlink()
    unchanged = watch(project.root, commit)
    project.commit()
    unchanged()
    project.write({"new.py": "2", "a.py": "3"})
    with pytest.raises(CannotCompare, match=r"\(a.py and 1 more\)"):
        unchanged()


def test_a_submodule_is_watched_as_well(project: Project, tmp_path: Path) -> None:
    """Its commit, and an edit in it on top of another."""
    inner = Project(tmp_path / "inner")
    inner.commit({"in.py": "1"})
    project.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add",
                str(inner.root), "lib")  # fmt: skip
    commit = project.commit()
    assert state_of(project.root, commit) == {}
    for text in ("2", "3"):
        unchanged = watch(project.root, commit)
        (project.root / "lib" / "in.py").write_text(text)
        with pytest.raises(CannotCompare, match=r"\(lib\)"):
            unchanged()


def test_what_git_refuses_is_told_in_its_words(project: Project) -> None:
    """It is no reason to call the tree unchanged."""
    unchanged = watch(project.root, project.commit())
    (project.root / ".git" / "HEAD").write_text("broken")
    with pytest.raises(CannotCompare, match=r"^git (diff|ls-files): "):
        unchanged()
