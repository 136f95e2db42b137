"""What belongs to a tree, by the files that it holds: module names, packages, distributions."""

from __future__ import annotations

import configparser
import re
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from pytest_nnscale.ab.git import ask_git

_CODE = {".py", ".pyx"}
_TABLE = re.compile(
    r"^\[(?:project|tool\.poetry)\][^\n]*$(.*?)(?=^\[|\Z)", re.MULTILINE | re.DOTALL
)
_NAME = re.compile(r"^\s*name\s*=\s*[\"']([^\"']+)[\"']", re.MULTILINE)
_CALL = re.compile(r"\bname\s*=\s*[\"']([^\"']+)[\"']")
# What lies there is not the project: an installed distribution of that name is somebody else's.
_ASIDE = {
    "test", "tests", "testing", "doc", "docs", "example", "examples", "fixtures", "template",
    "templates", "third_party", "thirdparty", "3rdparty", "vendor", "vendored", "_vendor",
    "external", "extern", "deps", "submodules",
}  # fmt: skip
# Run by tools, from wherever they are: nothing of them is measured.
_TOOLS = {"setup", "conftest", "__init__", "__main__"}


def list_files(root: Path) -> set[Path]:
    """Return the files of a tree by their paths in it: those that git knows, or would not ignore."""
    listed = ask_git(root, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    return {Path(name) for name in listed.split("\0") if name}


def own_names(files: Collection[Path], places: Iterable[Path]) -> set[str]:
    """Return the names of what can be imported from folders of a tree that lead an import path.

    That of the topmost package with an __init__.py, such as `mine`, or `company.mine` where company is
    shared with others; that of the module where there is none, such as `tests.sizes`.
    """
    names: set[str] = set()
    for place in places:
        for file in files:
            if file.suffix in _CODE and file.is_relative_to(place):
                names.add(_name(file, place, files))
    # A project may have a profile.py of its own, beside that of the standard library.
    foreign = {*sys.stdlib_module_names, *_TOOLS}
    return {name for name in names if name.partition(".")[0] not in foreign}


def _name(file: Path, place: Path, files: Collection[Path]) -> str:
    parts = file.relative_to(place).with_suffix("").parts
    for depth in range(1, len(parts)):
        if place.joinpath(*parts[:depth], "__init__.py") in files:
            return ".".join(parts[:depth])
    return ".".join(parts)


def own_packages(files: Collection[Path]) -> set[Path]:
    """Return the folders of the topmost packages that lie anywhere in a tree."""
    found = (file.parent for file in files if file.name == "__init__.py")
    return {
        folder
        for folder in found
        if folder.name and folder.parent / "__init__.py" not in files and not _is_aside(folder)
    }


def own_projects(files: Iterable[Path], root: Path) -> set[str]:
    """Return the names of the distributions that the project files of a tree declare."""
    names = set()
    for file in files:
        read = _READERS.get(file.name)
        if read is None or _is_aside(file):
            continue
        try:
            name = read((root / file).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, configparser.Error):
            continue
        if name:
            names.add(normalized(name))
    return names


def _is_aside(path: Path) -> bool:
    return not _ASIDE.isdisjoint(path.parts)


def normalized(name: str) -> str:
    """Return a distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _from_toml(text: str) -> str | None:
    # No reader of TOML comes with Python 3.10, and one name is all that is asked for.
    names = (_NAME.search(table) for table in _TABLE.findall(text))
    return next((name[1] for name in names if name), None)


def _from_cfg(text: str) -> str | None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return parser.get("metadata", "name", fallback=None)


def _from_setup(text: str) -> str | None:
    name = _CALL.search(text)
    return name[1] if name else None


_READERS = {"pyproject.toml": _from_toml, "setup.cfg": _from_cfg, "setup.py": _from_setup}
