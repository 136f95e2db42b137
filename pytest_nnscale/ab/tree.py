"""A tree of the project: where it lies, who runs it, and from where its modules are imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from pytest_nnscale.ab.git import without_git
from pytest_nnscale.ab.group import Group
from pytest_nnscale.ab.stopping import held_back
from pytest_nnscale.errors import BadOption, CannotCompare

# A sitecustomize may print as well, before or after.
_MARK = "nnscale-interpreter:"
_ASK = f"""
import json, site, sys, sysconfig
path = [entry for entry in sys.path if entry]
prefixes = [sys.prefix, sys.base_prefix, sys.exec_prefix]
names = ("stdlib", "platstdlib", "purelib", "platlib")
libraries = [sysconfig.get_path(name) for name in names]
libraries += [*getattr(site, "getsitepackages", list)(), site.getusersitepackages()]
print("\\n{_MARK}" + json.dumps([path, prefixes, libraries]))
"""


class Tree(NamedTuple):
    """One side: a checked-out revision, or the working tree, and the interpreter that runs it.

    `folder` is where the command was started, in this tree. `others` are the roots of the project's
    other trees, whose files this one must not import. `caches` is a folder of its own for what is
    built while it runs.
    """

    side: str
    name: str
    commit: str
    root: Path
    folder: Path
    others: tuple[Path, ...]
    python: str
    caches: Path | None = None

    def moved(self, text: str) -> str:
        """Return a word of a command line, with a path into another tree led to this one."""
        option, equals, value = text.partition("=") if text.startswith("-") else ("", "", text)
        path, colons, node = value.partition("::")
        if not Path(path).is_absolute():
            return text
        return f"{option}{equals}{self.mapped(Path(path))}{colons}{node}"

    def mapped(self, path: Path) -> Path:
        """Return the counterpart of a path into another tree; what lies elsewhere stays."""
        for spelling in (path, path.resolve()):
            inside = self.inside(spelling)
            if inside is not None:
                return self.root / inside
        return path

    def inside(self, path: Path) -> Path | None:
        """Return where a path is in the tree that it leads into; None where it leads elsewhere."""
        # A tree may lie within another: the deepest is meant.
        for root in sorted((self.root, *self.others), key=lambda root: -len(root.parts)):
            if path.is_relative_to(root):
                return path.relative_to(root)
        return None

    def environments(self, interpreter: Interpreter, files: Iterable[Path]) -> tuple[Path, ...]:
        """Return the folders of installed code that lie within the project's own trees.

        An interpreter's prefix, or its libraries alone where the prefix holds some of the project's
        own `files`, by their paths in a tree.
        """
        folders: list[Path] = []
        for prefix in interpreter.prefixes:
            inside = self.inside(prefix)
            if inside is None:
                continue
            if any(file.is_relative_to(inside) for file in files):
                folders += [lib for lib in interpreter.libraries if lib.is_relative_to(prefix)]
            else:
                folders.append(prefix)
        return tuple(dict.fromkeys(folders))


class Interpreter(NamedTuple):
    """Where an interpreter looks for modules by itself, where it is installed, and its libraries."""

    path: tuple[Path, ...]
    prefixes: tuple[Path, ...]
    libraries: tuple[Path, ...] = ()


def find_python(text: str | None, option: str) -> str:
    """Return the full path of an interpreter that was named; BadOption where there is none."""
    if text is None:
        return sys.executable
    found = shutil.which(text)
    if found is None:
        raise BadOption(f"{option}: there is no {text!r} that can be run")
    # Links stay: an environment's python is one.
    return str(Path(found).absolute())


def ask_interpreter(tree: Tree) -> Interpreter:
    """Ask a tree's interpreter where it looks for modules; CannotCompare where it does not say."""
    done = subprocess.run(
        [tree.python, "-c", _ASK],
        cwd=tree.folder,
        env=without_git(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CannotCompare(f"{tree.side}: {tree.python} cannot be run", output=done.stderr)
    told = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if not told:
        raise CannotCompare(
            f"{tree.side}: {tree.python} is no Python that says where its modules are",
            output=done.stdout + done.stderr,
        )
    path, prefixes, libraries = json.loads(told[-1].removeprefix(_MARK))
    return Interpreter(
        tuple(map(Path, path)),
        tuple(Path(prefix).resolve() for prefix in prefixes),
        tuple(Path(library).resolve() for library in libraries),
    )


def leading_places(
    tree: Tree, interpreter: Interpreter, environments: Sequence[Path]
) -> list[Path]:
    """Return the folders of a tree that lead its import path.

    Its root and `src`, and the counterpart of whatever the interpreter would import from another
    tree: by an editable install, or a PYTHONPATH. What is installed in one of the `environments`
    stays where it is.
    """
    places: list[Path] = []
    for folder in (tree.folder, tree.root):
        # `import src.model` means a package, whose modules must not go by their bare names.
        src = [folder / "src"] if not (folder / "src" / "__init__.py").exists() else []
        places += [folder, *src]
    for entry in interpreter.path:
        installed = any(entry.resolve().is_relative_to(folder) for folder in environments)
        moved = tree.mapped(entry)
        if not installed and moved.is_relative_to(tree.root):
            places.append(moved)
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def environment(places: Sequence[Path], caches: Path | None = None) -> dict[str, str]:
    """Return the environment of a tree's processes: its own modules come first.

    With `caches` what is built at run time and found again by its name alone goes there: else both
    sides would load whichever source was built last. Caches that go by content stay shared.
    """
    kept = without_git(os.environ)
    led = [str(place) for place in places]
    kept["PYTHONPATH"] = os.pathsep.join([*led, *_entries(kept, "PYTHONPATH")])
    if caches is not None:
        # Extensions of torch.utils.cpp_extension, and code of models with trust_remote_code.
        kept["TORCH_EXTENSIONS_DIR"] = str(caches / "torch_extensions")
        kept["HF_MODULES_CACHE"] = str(caches / "hf_modules")
    return kept


def set_up(tree: Tree, command: str, environment: Mapping[str, str]) -> None:
    """Run a shell command in a tree; CannotCompare, with what it printed, where it fails.

    `python` is the tree's interpreter there.
    """
    path = os.pathsep.join([str(Path(tree.python).parent), *_entries(environment, "PATH")])
    words = ["/bin/sh", "-c", command]
    with ExitStack() as started:
        with held_back():
            shell = started.enter_context(Group(words, tree.folder, {**environment, "PATH": path}))
        status = shell.wait()
    if status:
        raise CannotCompare(
            f"--setup exited with {status} in {tree.side} ({tree.name})", output=shell.output()
        )


def _entries(environment: Mapping[str, str], name: str) -> list[str]:
    return [entry for entry in environment.get(name, "").split(os.pathsep) if entry]
