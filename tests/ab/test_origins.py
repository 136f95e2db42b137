"""Origins: a module of the project that was imported from another place is found."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pytest_nnscale.ab.origins import (
    Origins,
    Stranger,
    installed_copies,
    loaded_files,
    loaded_libraries,
)

ROOT, PROJECT = Path("/trees/base"), Path("/home/project")
SITE = "/usr/lib/python3/site-packages"
VENV = "/home/project/.venv/lib/site-packages"


def origins(*environments: str) -> Origins:
    return Origins(
        own=[ROOT],
        others=[PROJECT, Path("/trees/base/nested")],
        environments=[Path(folder) for folder in environments],
        names=["mine", "company.ours"],
    )


@pytest.mark.parametrize(
    "files",
    [
        {"mine": "/home/project/mine/__init__.py"},
        {"mine": f"{SITE}/mine/__init__.py"},
        {"mine.core": f"{SITE}/mine/core.so"},
        {"company.ours.part": f"{SITE}/company/ours/part.py"},
        {"other": "/home/project/python/other/__init__.py"},
        {"test_it": "/home/project/tests/test_it.py"},
        {"other": "/trees/base/nested/other.py"},
    ],
    ids=["editable", "installed", "a part of it", "in a namespace", "elsewhere in the tree", "a test",
         "of a tree inside this one"],
)  # fmt: skip
def test_a_module_from_another_place_is_a_stranger(files: dict[str, str]) -> None:
    """It is named with its file, whatever else is loaded."""
    before = {"torch": f"{SITE}/torch/__init__.py", "mine.own": "/trees/base/mine/own.py"}
    assert origins().find_stranger({**before, **files}) == Stranger(*next(iter(files.items())))


@pytest.mark.parametrize(
    "files",
    [
        {"mine": "/trees/base/mine/__init__.py", "mine.core": "/trees/base/mine/core.py"},
        {"torch": f"{SITE}/torch/__init__.py"},
        {"minefield": f"{SITE}/minefield.py"},
        {"company.theirs": f"{SITE}/company/theirs.py"},
        {"torch": f"{VENV}/torch/__init__.py"},
    ],
    ids=["its own", "somebody else's", "begins alike", "shares a namespace", "an environment"],
)
def test_all_else_is_none(files: dict[str, str]) -> None:
    """Also what is installed in an environment that lies in the working tree."""
    assert origins("/home/project/.venv").find_stranger(files) is None


def test_a_copy_in_an_environment_inside_the_tree_is_a_stranger() -> None:
    """The working tree's own environment may hold a stale build of it."""
    file = "/trees/base/.venv/site-packages/mine/__init__.py"
    assert origins("/trees/base/.venv").find_stranger({"mine": file}) == Stranger("mine", file)


def test_what_was_built_for_a_tree_lies_in_its_caches() -> None:
    """Also where temporary folders lie in the working tree."""
    caches = PROJECT / "tmp" / "caches-base"
    built = {"kernel": f"{caches}/torch_extensions/kernel.so"}
    assert origins().find_stranger(built) is not None
    assert origins()._replace(own=[ROOT, caches]).find_stranger(built, built.values()) is None


@pytest.mark.parametrize(
    ("library", "stranger"),
    [
        ("/home/project/build/libmine.so", True),
        ("/trees/base/build/libmine.so", False),
        (f"{SITE}/other/mine.so", False),
        (f"{VENV}/torch/libtorch.so", False),
    ],
)
def test_a_library_of_another_tree_is_a_stranger(library: str, stranger: bool) -> None:
    """By where it lies; its name is no module's."""
    found = origins("/home/project/.venv").find_stranger({}, [library])
    assert found == (Stranger(Path(library).name, library) if stranger else None)


def write(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("")


def test_links_are_followed(tmp_path: Path) -> None:
    """A link among the installed packages leads into the working tree."""
    write(tmp_path, "project/mine.py", "site/x")
    link = tmp_path / "site" / "mine_linked.py"
    link.symlink_to(tmp_path / "project" / "mine.py")
    found = Origins(own=[ROOT], others=[(tmp_path / "project").resolve()])
    assert found.find_stranger({"mine_linked": str(link)}) is not None


PARTS = ("__init__.py", "model.py", "layers/norm.py")


@pytest.mark.parametrize(
    ("installed", "stranger"),
    [
        (PARTS, True),
        ((*PARTS, "new.py"), True),
        (("__init__.py", "arrow.py", "builder.py"), False),
    ],
    ids=["the same", "another version", "a name that others have as well"],
)
def test_a_package_with_the_trees_own_files_is_a_stranger(
    tmp_path: Path, installed: tuple[str, ...], stranger: bool
) -> None:
    """Wherever it lies in the tree; HF's `datasets` is not the tree's lib/datasets."""
    package, site = tmp_path / "tree/lib/datasets", tmp_path / "site/datasets"
    write(package, *PARTS)
    write(site, *installed)
    names = (part.removesuffix(".py").replace("/", ".") for part in installed)
    files = {
        "datasets" if name == "__init__" else f"datasets.{name}": str(site / part)
        for name, part in zip(names, installed, strict=True)
    }
    found = Origins(own=[tmp_path / "tree"], others=(), packages=[package]).find_stranger(files)
    assert found == (Stranger("datasets", str(site / "__init__.py")) if stranger else None)


def install(site: Path, direct: object | None = None, *files: str) -> None:
    """Write the distribution `Mine_Own` among installed packages."""
    info = site / "mine_own-1.0.dist-info"
    write(site, *files)
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Mine_Own\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    if direct is not None:
        (info / "direct_url.json").write_text(json.dumps(direct))


def from_folder(folder: Path, *, editable: bool = False) -> object:
    return {"url": folder.as_uri(), "dir_info": {"editable": editable}}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of installed packages on the import path."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site"


def test_what_was_installed_from_a_tree_is_a_stranger(site: Path, tmp_path: Path) -> None:
    """By pip's note of where from, whatever its name and wherever in the tree."""
    install(site, from_folder(tmp_path / "tree" / "python"), "mine.py")
    found = Origins(own=[ROOT], others=[tmp_path / "tree"])
    file = str(site / "mine.py")
    assert found.find_stranger({"mine": file}) == Stranger("mine", file)
    assert found.find_stranger({}, [file]) == Stranger("mine.py", file)


@pytest.mark.parametrize(
    "direct",
    [
        None,
        {"url": "https://example.org/mine", "vcs_info": {"vcs": "git", "commit_id": "12"}},
        {"url": "file:///elsewhere", "dir_info": {}},
        {"url": "file:///trees/base/wheels/mine.whl", "archive_info": {}},
        ["no", "note"],
    ],
)
def test_what_was_installed_from_elsewhere_is_known_by_its_name(site: Path, direct: object) -> None:
    """That which a project file of the tree declares, as indexes compare it."""
    install(site, direct, "mine.py")
    assert installed_copies([ROOT], []) == set()
    assert site / "mine.py" in installed_copies([ROOT], ["mine-own"])


@pytest.mark.parametrize(
    "finder", ["__editable___mine_own_1_0_finder.py", "_mine_own_editable.py", "_editable_impl_mine.py"]
)  # fmt: skip
def test_what_leads_to_an_editable_install_is_no_copy(
    site: Path, tmp_path: Path, finder: str
) -> None:
    """It is imported when the interpreter starts; a compiled part that lies beside it is one."""
    install(site, from_folder(tmp_path, editable=True), finder, "mine/core.so")
    copies = installed_copies([tmp_path], ["mine-own"])
    assert site / finder not in copies
    assert site / "mine/core.so" in copies


def test_origins_are_written_and_read(tmp_path: Path) -> None:
    """As they were."""
    before = origins("/home/project/.venv")._replace(packages=[ROOT / "lib/mine"], projects=["m"])
    before.write(tmp_path / "origins.json")
    assert Origins.read(tmp_path / "origins.json") == before


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


def test_loaded_libraries_are_those_that_hold_code(tmp_path: Path) -> None:
    """Weights that are mapped are none; elsewhere than on Linux nothing is known of them."""
    maps = tmp_path / "maps"
    maps.write_text(
        "7f00-7f01 r-xp 00000000 08:01 12   /home/project/build/lib mine.so (deleted)\n"
        "7f01-7f02 r--p 00000000 08:01 12   /home/project/model.safetensors\n"
        "7f02-7f03 r-xp 00000000 00:00 0    [vdso]\n"
        "7f03-7f04 rwxp 00000000 00:00 0\n"
    )
    assert loaded_libraries(maps) == ["/home/project/build/lib mine.so"]
    assert loaded_libraries(tmp_path / "none") == []
