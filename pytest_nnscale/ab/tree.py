"""A tree of the project: where it lies, who runs it, and from where its modules are imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from pytest_nnscale.ab.group import Group
from pytest_nnscale.ab.revision import without_git
from pytest_nnscale.ab.stopping import held_back
from pytest_nnscale.errors import BadOption, CannotCompare

_ASK = """
import json, sys
print(json.dumps([[entry for entry in sys.path if entry], [sys.prefix, sys.base_prefix, sys.exec_prefix]]))
"""


class Tree(NamedTuple):
    """One side: a checked-out revision, or the working tree, and the interpreter that runs it.

    `folder` is where the command was started, in this tree. `others` are the roots of the project's
    other trees, whose files this one must not import.
    """

    side: str
    name: str
    commit: str
    root: Path
    folder: Path
    others: tuple[Path, ...]
    python: str

    def moved(self, text: str) -> str:
        """Return a word of a command line, with a path into another tree led to this one."""
        option, equals, value = text.partition("=") if text.startswith("-") else ("", "", text)
        path, colons, node = value.partition("::")
        if not Path(path).is_absolute():
            return text
        return f"{option}{equals}{self.mapped(Path(path))}{colons}{node}"

    def mapped(self, path: Path) -> Path:
        """Return the counterpart of a path into another tree; what lies elsewhere stays."""
        # A tree may lie within another: the deepest is meant.
        roots = sorted((self.root, *self.others), key=lambda root: -len(root.parts))
        for spelling in (path, path.resolve()):
            for root in roots:
                if spelling.is_relative_to(root):
                    return self.root / spelling.relative_to(root)
        return path

    def environments(self, prefixes: Sequence[Path]) -> tuple[Path, ...]:
        """Return which of an interpreter's prefixes lie within the project's own trees."""
        roots = (self.root, *self.others)
        return tuple(p for p in prefixes if any(p.is_relative_to(root) for root in roots))


class Interpreter(NamedTuple):
    """Where an interpreter looks for modules by itself, and where it is installed."""

    path: tuple[Path, ...]
    prefixes: tuple[Path, ...]


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
    path, prefixes = json.loads(done.stdout)
    return Interpreter(tuple(map(Path, path)), tuple(Path(prefix).resolve() for prefix in prefixes))


def leading_places(tree: Tree, interpreter: Interpreter) -> list[Path]:
    """Return the folders of a tree that lead its import path.

    Its root and `src`, and the counterpart of whatever the interpreter would import from another
    tree: by an editable install, or a PYTHONPATH.
    """
    places: list[Path] = []
    for folder in (tree.folder, tree.root):
        # `import src.model` means a package, whose modules must not go by their bare names.
        src = [folder / "src"] if not (folder / "src" / "__init__.py").exists() else []
        places += [folder, *src]
    inside = tree.environments(interpreter.prefixes)
    for entry in interpreter.path:
        installed = any(entry.resolve().is_relative_to(prefix) for prefix in inside)
        moved = tree.mapped(entry)
        if not installed and moved.is_relative_to(tree.root):
            places.append(moved)
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def environment(places: Sequence[Path]) -> dict[str, str]:
    """Return the environment of a tree's processes: its own modules come first."""
    kept = without_git(os.environ)
    led = [str(place) for place in places]
    return {**kept, "PYTHONPATH": os.pathsep.join([*led, *_entries(kept, "PYTHONPATH")])}


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
