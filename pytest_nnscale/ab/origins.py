"""Where modules come from: those of the project must come from the tree that is measured.

An editable install, a stale copy among the installed packages, or another clone on the import path
would have one tree measure the code of another, and find no difference. A module or library from
outside the tree is the project's

- where it lies in another of its trees, and is not installed there;
- where its name is that of a module that lies below a folder that leads the import path;
- where an installed distribution has it that was installed from one of the trees, or has the name
  that a project file of the tree declares;
- where it is part of a package most of whose loaded files a package of the tree has as well.

Names alone decide nothing elsewhere: a tests/utils.py is no claim to an installed `utils`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

_FINDER = re.compile(r"_\w*editable\w*\.py")


class Stranger(NamedTuple):
    """A module of the project that was imported from somewhere else, or a library from there."""

    module: str
    file: str


class Origins(NamedTuple):
    """What a tree holds, and which folders are its own.

    `own` are its root and its caches, `others` the roots of the project's other trees, `environments`
    the folders in either in which others' code is installed. `names` are those of modules that can be
    imported from the folders that lead the import path, `packages` the folders of packages that lie
    anywhere in the tree, `projects` the names of distributions that it declares.
    """

    own: Sequence[Path]
    others: Sequence[Path]
    environments: Sequence[Path] = ()
    names: Sequence[str] = ()
    packages: Sequence[Path] = ()
    projects: Sequence[str] = ()

    @classmethod
    def read(cls, file: Path) -> Origins:
        """Read what `write` wrote."""
        fields = json.loads(file.read_text(encoding="utf-8"))
        for name in ("own", "others", "environments", "packages"):
            fields[name] = [Path(folder) for folder in fields[name]]
        return cls(**fields)

    def write(self, file: Path) -> None:
        """Write it down for a worker: it may be long."""
        fields = {name: [str(each) for each in value] for name, value in self._asdict().items()}
        file.write_text(json.dumps(fields), encoding="utf-8")

    def find_stranger(
        self, modules: Mapping[str, str], libraries: Iterable[str] = ()
    ) -> Stranger | None:
        """Return the first that should be the tree's own and is not, from files by module name."""
        outside = {m: file for m, file in modules.items() if not self._is_own(_resolved(file))}
        copies = installed_copies((*self.own, *self.others), self.projects)
        names = frozenset(self.names)
        for module, text in outside.items():
            file = _resolved(text)
            if self._is_of_another(file) or file in copies or not names.isdisjoint(_chain(module)):
                return Stranger(module, text)
        for text in libraries:
            file = _resolved(text)
            if not self._is_own(file) and (self._is_of_another(file) or file in copies):
                return Stranger(file.name, text)
        return self._find_look_alike(outside)

    def _find_look_alike(self, outside: Mapping[str, str]) -> Stranger | None:
        """Return a package from outside that has, as far as it is loaded, the tree's own files."""
        here: dict[str, list[Path]] = {}
        for package in self.packages:
            here.setdefault(package.name, []).append(package)
        loaded: dict[str, list[str]] = {}
        for module, text in outside.items():
            # Without an __init__.py a package has no file, and its parts stand for themselves.
            top = next(name for name in _chain(module) if name in outside)
            if top.rpartition(".")[2] in here:
                loaded.setdefault(top, []).append(text)
        for top, texts in loaded.items():
            first = Path(outside[top])
            if first.name != "__init__.py":
                continue
            parts = [_below(text, first.parent) for text in texts if text.endswith(".py")]
            for package in here[top.rpartition(".")[2]]:
                alike = sum((package / part).is_file() for part in parts if part)
                if 2 * alike > len(parts):
                    return Stranger(top, outside[top])
        return None

    def _is_own(self, file: Path) -> bool:
        # A tree may lie within another: the deepest is meant.
        around = [root for root in (*self.own, *self.others) if file.is_relative_to(root)]
        deepest = max(around, key=lambda root: len(root.parts), default=None)
        return deepest in self.own and not self._is_installed(file)

    def _is_of_another(self, file: Path) -> bool:
        return not self._is_installed(file) and any(
            file.is_relative_to(root) for root in self.others
        )

    def _is_installed(self, file: Path) -> bool:
        return any(file.is_relative_to(folder) for folder in self.environments)


def installed_copies(roots: Iterable[Path], projects: Iterable[str]) -> set[Path]:
    """Return the files of distributions that were installed from trees, or have a project's name."""
    places = tuple(roots)
    found = [d for d in metadata.distributions() if _is_from(d, places)]
    for name in projects:
        found += metadata.distributions(name=name)
    files = (file for distribution in found for file in distribution.files or ())
    # An editable install has a module of its own, which leads to the tree and holds nothing of it.
    return {
        Path(str(file.locate())).resolve() for file in files if not _FINDER.fullmatch(file.name)
    }


def _is_from(distribution: metadata.Distribution, places: Iterable[Path]) -> bool:
    """Return whether a distribution was installed from a folder that lies in one of some places."""
    try:
        told = json.loads(distribution.read_text("direct_url.json") or "{}")  # PEP 610
        url = urlsplit(told["url"]) if "dir_info" in told else None
    except (OSError, ValueError, KeyError, TypeError):
        return False  # what an interrupted pip has left
    if url is None or url.scheme != "file":
        return False
    source = Path(unquote(url.path)).resolve()
    return any(source.is_relative_to(place) for place in places)


def loaded_files() -> dict[str, str]:
    """Return the file of every module that is loaded."""
    # Not by getattr, which some modules answer by importing more.
    found = [(name, vars(module).get("__file__")) for name, module in [*sys.modules.items()]
             if hasattr(module, "__dict__")]  # fmt: skip
    # Those of torch.ops and its like have no folder.
    return {n: file for n, file in found if isinstance(file, str) and Path(file).is_absolute()}


def loaded_libraries(maps: Path = Path("/proc/self/maps")) -> list[str]:
    """Return the files that this process has mapped as code; none where there is no /proc."""
    try:
        lines = maps.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    mapped = [line.split(None, 5) for line in lines]
    # One that was rebuilt meanwhile is named with a remark.
    files = [parts[5].removesuffix(" (deleted)") for parts in mapped
             if len(parts) == 6 and "x" in parts[1]]  # fmt: skip
    return [file for file in dict.fromkeys(files) if file.startswith("/")]


def _chain(module: str) -> Iterator[str]:
    """Yield the packages around a module, the topmost first, and the module itself."""
    parts = module.split(".")
    yield from (".".join(parts[: number + 1]) for number in range(len(parts)))


def _resolved(text: str) -> Path:
    return Path(text).resolve()


def _below(text: str, folder: Path) -> Path | None:
    file = Path(text)
    return file.relative_to(folder) if file.is_relative_to(folder) else None
