"""Origins: a module of the project that was imported from another place is found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_nnscale.ab.origins import (
    Stranger,
    find_stranger,
    installed_copies,
    loaded_files,
    own_names,
)

ROOT, PROJECT = Path("/trees/base"), Path("/home/project")
SITE = "/usr/lib/python3/site-packages"


def found(files: dict[str, str], *, environments: tuple[str, ...] = ()) -> Stranger | None:
    return find_stranger(
        files,
        root=ROOT,
        others=[PROJECT],
        names={"mine"},
        copies={Path(f"{SITE}/lib_mine.py")},
        environments=[Path(folder) for folder in environments],
    )


@pytest.mark.parametrize(
    "files",
    [
        {"mine": "/home/project/mine/__init__.py"},
        {"mine": f"{SITE}/mine/__init__.py"},
        {"mine.core": f"{SITE}/mine/core.so"},
        {"other": "/home/project/python/other/__init__.py"},
        {"test_it": "/home/project/tests/test_it.py"},
        {"lib_mine": f"{SITE}/lib_mine.py"},
    ],
    ids=["editable", "installed", "a part of it", "elsewhere in the tree", "a test", "a copy"],
)
def test_a_module_from_another_place_is_a_stranger(files: dict[str, str]) -> None:
    """It is named with its file, whatever else is loaded."""
    before = {"torch": f"{SITE}/torch/__init__.py", "mine.own": "/trees/base/mine/own.py"}
    assert found({**before, **files}) == Stranger(*next(iter(files.items())))


@pytest.mark.parametrize(
    "files",
    [
        {"mine": "/trees/base/mine/__init__.py", "mine.core": "/trees/base/mine/core.py"},
        {"torch": f"{SITE}/torch/__init__.py"},
        {"minefield": f"{SITE}/minefield.py"},
        {"torch": "/home/project/.venv/lib/site-packages/torch/__init__.py"},
    ],
    ids=["its own", "somebody else's", "a name that begins alike", "an environment in the tree"],
)
def test_all_else_is_none(files: dict[str, str]) -> None:
    """Also what is installed in an environment that lies in the working tree."""
    assert found(files, environments=("/home/project/.venv",)) is None


def test_a_copy_in_an_environment_inside_the_tree_is_a_stranger() -> None:
    """The working tree's own environment may hold a stale build of it."""
    file = "/trees/base/.venv/site-packages/mine/__init__.py"
    assert found({"mine": file}, environments=("/trees/base/.venv",)) == Stranger("mine", file)


def test_links_are_followed(tmp_path: Path) -> None:
    """A link among the installed packages leads into the working tree."""
    target = tmp_path / "project" / "mine.py"
    target.parent.mkdir()
    target.write_text("")
    link = tmp_path / "site" / "mine_linked.py"
    link.parent.mkdir()
    link.symlink_to(target)
    stranger = find_stranger(
        {"mine_linked": str(link)},
        root=tmp_path / "base",
        others=[(tmp_path / "project").resolve()],
        names=(),
        copies=(),
        environments=(),
    )
    assert stranger is not None


def test_own_names_are_those_of_packages_and_modules(tmp_path: Path) -> None:
    """Folders without an __init__.py are none, and a name of the standard library is not ours."""
    for file in ("package/__init__.py", "folder/module.py", "module.py", "profile.py", "text.txt"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("")
    assert own_names([tmp_path, tmp_path / "nowhere"]) == {"package", "module"}


@pytest.mark.parametrize(
    "pyproject",
    ['[project]\nname = "pluggy"\n', "[project]\nversion = '1'\nname='pluggy'\n[tool.x]\n"],
)
def test_copies_are_the_files_of_the_installed_distribution(tmp_path: Path, pyproject: str) -> None:
    """Found by the project's name, wherever its modules lie in the tree."""
    import pluggy

    (tmp_path / "pyproject.toml").write_text(pyproject)
    assert Path(pluggy.__file__).resolve() in installed_copies(tmp_path)


@pytest.mark.parametrize(
    "pyproject", [None, "", '[project]\nname = "never-installed"', '[tool.x]\nname = "pluggy"']
)
def test_without_an_installed_distribution_there_are_none(
    tmp_path: Path, pyproject: str | None
) -> None:
    """No file, no name, no such distribution."""
    if pyproject is not None:
        (tmp_path / "pyproject.toml").write_text(pyproject)
    assert installed_copies(tmp_path) == set()


def test_loaded_files_ask_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some import more when they are asked for a name that they do not have."""

    class Lazy:
        def __getattr__(self, name: str) -> str:
            raise AssertionError(f"asked for {name}")

    monkeypatch.setitem(sys.modules, "lazy_module", Lazy())  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "no_module", None)  # type: ignore[arg-type]
    files = loaded_files()
    assert files["pytest"] == pytest.__file__
    assert "lazy_module" not in files
