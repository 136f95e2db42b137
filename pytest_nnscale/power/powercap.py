"""Linux's powercap tree: its zones, and the numbers in their files.

Source: the kernel's Documentation/power/powercap/powercap.rst. `intel-rapl:N` is a package or psys,
`intel-rapl:N:M` a zone inside it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pytest_nnscale.errors import CannotMeasure, NothingThere

_ZONE = re.compile(r"[a-z-]*rapl[a-z-]*(:\d+)+")
_DEPTH = 3


class Zone(NamedTuple):
    """A folder of the tree: `package` is the name of the package that it is or lies in."""

    path: Path
    name: str
    package: str

    @property
    def is_package(self) -> bool:
        """Whether it is a package or a die, which holds its cores."""
        return self.name.startswith("package")

    @property
    def shown(self) -> str:
        """What a user reads."""
        return self.name if self.name == self.package else f"{self.name} of {self.package}"


def zones_of(root: Path) -> Iterator[Zone]:
    """Yield every zone once: a package may be there by links, by folders, and by a second interface."""
    seen: set[tuple[str, str]] = set()
    folders = sorted(_folders(root), key=lambda folder: ("mmio" in folder.name, folder.name))
    names = {folder.name: _name(folder) for folder in folders}
    for folder in folders:
        name = names[folder.name]
        package = names.get(folder.name.rpartition(":")[0], "") or name
        if name and (name, package) not in seen:
            seen.add((name, package))
            yield Zone(folder, name, package)


def broken_links(root: Path) -> list[str]:
    """Return the names of zones that are links to nowhere, as where a container has the links alone."""
    try:
        entries = [Path(entry.path) for entry in os.scandir(root)]
    except OSError:
        return []
    return sorted(each.name for each in entries if _ZONE.fullmatch(each.name) and not each.exists())


def check_rights(files: Sequence[Path]) -> None:
    """Raise NothingThere for all files that may not be read together: one command mends them."""
    refused = []
    for file in files:
        try:
            file.read_text()
        except PermissionError as error:
            refused.append((file, error))
        except OSError:
            pass  # said where it is opened
    if refused:
        names = " ".join(str(file) for file, _ in refused)
        raise NothingThere(
            f"{names} may not be read",
            remedy=f"sudo chmod a+r {names} (until the next boot; a udev rule keeps it)",
        ) from refused[0][1]


def number_in(file: Path) -> int:
    """Return the number that is all of a file; CannotMeasure where it cannot be read."""
    try:
        return int(file.read_text())
    except (OSError, ValueError) as error:
        raise CannotMeasure(
            f"{file} cannot be read: {error}", remedy="check the powercap tree"
        ) from error


def _folders(root: Path, depth: int = _DEPTH) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if not _is_folder(entry):
            continue
        if _ZONE.fullmatch(entry.name):
            yield Path(entry.path)
        # Links lead to folders that are listed beside them, or round in circles.
        if depth > 1 and not entry.is_symlink():
            yield from _folders(Path(entry.path), depth - 1)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link round in circles, or a folder that is closed
        return False


def _name(folder: Path) -> str:
    with suppress(OSError):
        return (folder / "name").read_text().strip()
    return ""
