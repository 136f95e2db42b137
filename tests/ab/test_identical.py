"""The working tree against itself: both sides are the same, and stay it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_nnscale.ab import identical
from pytest_nnscale.ab.identical import compare_with_itself
from pytest_nnscale.ab.pair import Plan
from pytest_nnscale.errors import CannotCompare
from tests.ab.conftest import Project

QUICK = Plan(least=2, calls_s=0.1, max_time_s=0)
INI = "[pytest]\nasyncio_default_fixture_loop_scope = function\n"


class Edited:
    """Stands in for the restarts: the tree is edited in the first of them."""

    edit: Path

    def __init__(self, *_places: object, unchanged: Any, **_how: object) -> None:
        self.unchanged = unchanged

    def compare(self) -> str:
        self.unchanged()
        self.edit.write_text("edited")
        self.unchanged()
        return "compared"


def test_an_edit_is_an_error(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that changes is not identical, and its noise is none."""
    project.commit({"part/a.py": ""})
    monkeypatch.setattr(identical, "Restarts", Edited)
    monkeypatch.setattr(Edited, "edit", project.root / "part" / "a.py", raising=False)
    with pytest.raises(CannotCompare, match=r"was edited while it was measured \(part/a.py\)"):
        compare_with_itself(project.root / "part", (), plan=QUICK)


@pytest.mark.parametrize("git", [False, True], ids=["no repository", "no commit"])
def test_without_a_commit_nobody_knows(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, git: bool
) -> None:
    """It is measured all the same."""
    folder = project.root if git else tmp_path
    monkeypatch.setattr(identical, "Restarts", Edited)
    monkeypatch.setattr(Edited, "edit", folder / "a.py", raising=False)
    assert compare_with_itself(folder, (), plan=QUICK) == "compared"


@pytest.mark.slow
def test_a_project_is_tested_against_its_installed_wheel(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sources cannot be imported before they are built; the wheel is the same for both."""
    site = tmp_path / "site"
    for file, text in {
        "mine/__init__.py": "",
        "mine-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n",
        "mine-1.0.dist-info/RECORD": "mine/__init__.py,,\n",
    }.items():
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(site))
    project.commit(
        {
            "pyproject.toml": '[project]\nname = "mine"\n',
            "src/mine/__init__.py": "raise ImportError('not built')\n",
            "pytest.ini": INI,
            "test_it.py": "import pytest\nimport mine\n\n@pytest.mark.max_latency_ms(1)\n"
            "def test_it(): pytest.skip(mine.__file__)\n",
        }
    )
    report = compare_with_itself(project.root, (), plan=QUICK)
    assert report.comparisons[0].reason == f"Skipped: {site}/mine/__init__.py"
