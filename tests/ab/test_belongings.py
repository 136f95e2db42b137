"""Belongings: which names, packages and distributions are a tree's, by its files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_nnscale.ab.belongings import list_files, own_names, own_packages, own_projects

if TYPE_CHECKING:
    from tests.ab.conftest import Project


def paths(*files: str) -> set[Path]:
    return {Path(file) for file in files}


def test_files_are_those_of_git_and_new_ones(project: Project) -> None:
    """What git ignores is none of them."""
    project.commit({"a.py": "", ".gitignore": "build/\n"})
    project.write({"new/b.py": "", "build/c.py": ""})
    assert list_files(project.root) == paths("a.py", ".gitignore", "new/b.py")


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["mine/__init__.py", "mine/part/__init__.py", "mine/x.py"], {"mine"}),
        (["module.py", "core.pyx", "text.txt"], {"module", "core"}),
        (["company/mine/__init__.py", "company/mine/x.py"], {"company.mine"}),
        (["company/solo.py"], {"company.solo"}),
        (["tests/utils.py", "docs/conf.py"], {"tests.utils", "docs.conf"}),
        (["setup.py", "conftest.py", "__init__.py"], set()),
        (["profile.py", "profile/x.py"], set()),
    ],
    ids=["a package", "modules", "a namespace", "a module in one", "folders", "tools", "standard"],
)
def test_names_are_those_below_a_folder_that_leads(files: list[str], names: set[str]) -> None:
    """A tests/utils.py is no claim to a module named `utils`."""
    assert own_names(paths(*files), [Path()]) == names
    below = paths(*(f"src/{file}" for file in files))
    assert own_names(below, [Path("src")]) == names


def test_packages_are_the_topmost_anywhere() -> None:
    """Not those of tests, nor what others have made."""
    files = paths(
        "python/mine/__init__.py", "python/mine/part/__init__.py", "packages/x/src/other/__init__.py",
        "tests/mine/__init__.py", "third_party/numpy/numpy/__init__.py", "lib/folder/x.py",
        "__init__.py",
    )  # fmt: skip
    assert own_packages(files - paths("__init__.py")) == paths(
        "python/mine", "packages/x/src/other"
    )
    assert Path() not in own_packages(files)


@pytest.mark.parametrize(
    ("file", "text", "name"),
    [
        ("pyproject.toml", '[project]\nname = "It"\n', "it"),
        ("python/pyproject.toml", "[project] # of it\ndynamic = ['version']\nname='it'", "it"),
        ("pyproject.toml", '[project]\nkeywords = [\n  "a",\n]\nname = "it"\n', "it"),
        ("pyproject.toml", '[tool.poetry]\nversion = "1"\nname = "My_Own.it"\n', "my-own-it"),
        ("setup.cfg", "[metadata]\nname = it\n", "it"),
        ("setup.py", "from setuptools import setup\nsetup(\n    name='it', version=V)\n", "it"),
        ("pyproject.toml", '[tool.x]\nname = "it"\n', None),
        ("pyproject.toml", '[project]\nversion = "1"\n[tool.x]\nname = "it"\n', None),
        ("setup.cfg", "no section\n", None),
        ("tests/data/pyproject.toml", '[project]\nname = "it"\n', None),
        ("setup.py", "setup(name=NAME)", None),
    ],
)
def test_projects_are_declared_by_their_files(
    tmp_path: Path, file: str, text: str, name: str | None
) -> None:
    """In whatever format, anywhere in the tree; what tests are made of declares nothing."""
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    assert own_projects(paths(file, "gone/setup.py"), tmp_path) == ({name} if name else set())
