"""Where modules come from: those of the project must come from the tree that is measured.

An editable install, or a stale copy among the installed packages, would have one tree measure the
code of another, and find no difference.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

_NAME = re.compile(r"^\[project\][^\[]*?^name\s*=\s*[\"']([^\"']+)[\"']", re.MULTILINE | re.DOTALL)


class Stranger(NamedTuple):
    """A module of the project that was imported from somewhere else."""

    module: str
    file: str


def own_names(places: Iterable[Path]) -> set[str]:
    """Return the names of the top-level packages and modules in folders that lead an import path."""
    names: set[str] = set()
    for place in places:
        names |= {file.stem for file in place.glob("*.py")}
        names |= {file.parent.name for file in place.glob("*/__init__.py")}
    # A project may have a profile.py of its own, beside that of the standard library.
    return names - set(sys.stdlib_module_names)


def installed_copies(root: Path) -> set[Path]:
    """Return the files that an installed distribution has of a tree, found by the project's name."""
    try:
        named = _NAME.search((root / "pyproject.toml").read_text(encoding="utf-8"))
        files = metadata.files(named[1]) if named else None
    except (OSError, metadata.PackageNotFoundError):
        return set()
    return {Path(str(file.locate())).resolve() for file in files or ()}


def find_stranger(
    files: Mapping[str, str],
    *,
    root: Path,
    others: Sequence[Path],
    names: Container[str],
    copies: Container[Path],
    environments: Sequence[Path],
) -> Stranger | None:
    """Return the first module that should be a tree's own and is not, from files by module name.

    Whatever lies in one of the `others`, the other trees of the project, is a stranger, but for what
    is installed in one of the `environments` there.
    """
    for module, text in files.items():
        file = Path(text).resolve()
        is_installed = _within(file, environments)
        if file.is_relative_to(root) and not is_installed:
            continue
        is_of_another = _within(file, others) and not is_installed
        if is_of_another or module.partition(".")[0] in names or file in copies:
            return Stranger(module, text)
    return None


def loaded_files() -> dict[str, str]:
    """Return the file of every module that is loaded."""
    # Not by getattr, which some modules answer by importing more.
    found = [(name, vars(module).get("__file__")) for name, module in [*sys.modules.items()]
             if hasattr(module, "__dict__")]  # fmt: skip
    # Those of torch.ops and its like have no folder.
    return {n: file for n, file in found if isinstance(file, str) and Path(file).is_absolute()}


def _within(file: Path, folders: Iterable[Path]) -> bool:
    return any(file.is_relative_to(folder) for folder in folders)
