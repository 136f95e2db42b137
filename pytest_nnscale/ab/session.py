"""A session of base against head: from revisions to trees, to workers, to a report."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pytest_nnscale.ab.belongings import list_files, own_names, own_packages, own_projects
from pytest_nnscale.ab.comparison import Report
from pytest_nnscale.ab.meeting import Quiet, Undisturbed
from pytest_nnscale.ab.origins import Origins
from pytest_nnscale.ab.pair import Plan
from pytest_nnscale.ab.partner import Place
from pytest_nnscale.ab.restarts import Progress, Restarts
from pytest_nnscale.ab.revision import Repository
from pytest_nnscale.ab.state import state_of, watch
from pytest_nnscale.ab.tree import (
    Tree,
    ask_interpreter,
    environment,
    find_python,
    leading_places,
    set_up,
)
from pytest_nnscale.errors import CannotCompare


class Asked(NamedTuple):
    """What to compare; without `head` it is the working tree, as it lies there.

    `arguments` are pytest's, `setup` a shell command for each tree. `confidence` is that of head's
    own options where it is not given.
    """

    base: str
    head: str | None = None
    arguments: tuple[str, ...] = ()
    plan: Plan = Plan()
    confidence: float | None = None
    setup: str | None = None
    base_python: str | None = None
    head_python: str | None = None


def compare_revisions(
    asked: Asked,
    *,
    folder: Path,
    progress: Progress = lambda _what, _done, _planned: None,
    quiet: Quiet | None = None,
) -> Report:
    """Compare two revisions of the repository around a folder, and leave nothing behind.

    BadOption says what cannot be meant, CannotCompare what did not work.
    """
    if os.name != "posix":
        raise CannotCompare("nnscale ab hands pipes to its workers, for which it needs POSIX")
    repository = Repository(folder)
    with _trees(repository, asked) as (base, head):
        for tree in (base, head):
            _set_up(tree, asked.setup)
        base_place, head_place = _places(base, head)
        restarts = Restarts(
            base_place,
            head_place,
            arguments=asked.arguments,
            plan=asked.plan,
            confidence=asked.confidence,
            quiet=quiet or Undisturbed(),
            progress=progress,
            unchanged=watch(repository.root, head.commit) if asked.head is None else lambda: None,
        )
        report = restarts.compare()
        if asked.head is None:
            dirty = bool(state_of(repository.root, head.commit))
            report = replace(report, head=replace(report.head, dirty=dirty))
        return report


@contextmanager
def _trees(repository: Repository, asked: Asked) -> Iterator[tuple[Tree, Tree]]:
    """Have both trees on disk; those that are not the working tree are gone afterwards."""
    pythons = {
        "base": find_python(asked.base_python, "--base-python"),
        "head": find_python(asked.head_python, "--head-python"),
    }
    revisions = {"base": asked.base, "head": asked.head}
    commits = {side: repository.resolve(revision or "HEAD") for side, revision in revisions.items()}
    repository.remove_orphans()
    with ExitStack() as stack:
        parent = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="nnscale-ab-"))
        ).resolve()
        roots = {
            side: repository.root if revision is None else parent / f"nnscale-ab-{side}"
            for side, revision in revisions.items()
        }
        listed = repository.trees()
        trees = []
        for side, revision in revisions.items():
            root, name = roots[side], "the working tree"
            if revision is not None:
                # Before there is anything to remove, so that no moment is left out.
                stack.callback(repository.remove, root)
                repository.check_out(commits[side], root)
                name = f"{revision} ({commits[side][:10]})"
            folder = root / repository.inside
            if not folder.is_dir():
                raise CannotCompare(f"{side} ({name}) has no folder {repository.inside}")
            others = tuple(o for o in dict.fromkeys((*listed, *roots.values())) if o != root)
            caches = parent / f"caches-{side}"
            caches.mkdir()
            trees.append(
                Tree(side, name, commits[side], root, folder, others, pythons[side], caches)
            )
        base, head = trees
        yield base, head


def _set_up(tree: Tree, setup: str | None) -> None:
    if setup is not None:
        interpreter = ask_interpreter(tree)
        installed = tree.environments(interpreter, list_files(tree.root))
        leading = leading_places(tree, interpreter, installed)
        set_up(tree, setup, environment(leading, tree.caches))


def _places(*trees: Tree) -> list[Place]:
    """Find out where the modules of trees come from; what is asked for first may be installed."""
    files = {tree.side: list_files(tree.root) for tree in trees}
    places = []
    for tree in trees:
        interpreter = ask_interpreter(tree)
        installed = tree.environments(interpreter, set().union(*files.values()))
        leading = leading_places(tree, interpreter, installed)
        origins = _origins(tree, files[tree.side], leading, installed)
        places.append(Place(tree, tuple(leading), origins))
    return places


def _origins(
    tree: Tree, files: Collection[Path], leading: Iterable[Path], installed: Sequence[Path]
) -> Path:
    """Write down what a tree holds, where its worker reads it."""
    assert tree.caches is not None
    origins = Origins(
        own=(tree.root, tree.caches),
        others=tree.others,
        environments=installed,
        names=sorted(own_names(files, (place.relative_to(tree.root) for place in leading))),
        packages=[tree.root / package for package in sorted(own_packages(files))],
        projects=sorted(own_projects(files, tree.root)),
    )
    path = tree.caches / "origins.json"
    origins.write(path)
    return path
