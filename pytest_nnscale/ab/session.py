"""A session of base against head: from revisions to trees, to workers, to a report."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from pytest_nnscale.ab.comparison import Report
from pytest_nnscale.ab.partner import Place
from pytest_nnscale.ab.restarts import Progress, Quiet, Restarts, Undisturbed
from pytest_nnscale.ab.revision import Repository
from pytest_nnscale.ab.tree import (
    Tree,
    ask_interpreter,
    environment,
    find_python,
    leading_places,
    set_up,
)
from pytest_nnscale.ab.trial import Plan
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
        places = _place(base, asked.setup), _place(head, asked.setup)
        unchanged = _watched(repository) if asked.head is None else lambda: None
        restarts = Restarts(
            *places,
            arguments=asked.arguments,
            plan=asked.plan,
            confidence=asked.confidence,
            quiet=quiet or Undisturbed(),
            progress=progress,
        )
        report = restarts.compare()
        unchanged()
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
    others = repository.trees()
    with ExitStack() as stack:
        parent = stack.enter_context(tempfile.TemporaryDirectory(prefix="nnscale-ab-"))
        trees = []
        for side, revision in revisions.items():
            root, name = repository.root, "the working tree"
            if revision is not None:
                path = Path(parent).resolve() / f"nnscale-ab-{side}"
                # Before there is anything to remove, so that no moment is left out.
                stack.callback(repository.remove, path)
                repository.check_out(commits[side], path)
                root = path
                name = f"{revision} ({commits[side][:10]})"
            folder = root / repository.inside
            if not folder.is_dir():
                raise CannotCompare(f"{side} ({name}) has no folder {repository.inside}")
            elsewhere = tuple(other for other in others if other != root)
            trees.append(Tree(side, name, commits[side], root, folder, elsewhere, pythons[side]))
        base, head = trees
        yield base, head


def _place(tree: Tree, setup: str | None) -> Place:
    if setup is not None:
        set_up(tree, setup, environment(leading_places(tree, ask_interpreter(tree))))
    # Asked again: the setup may have installed something.
    interpreter = ask_interpreter(tree)
    leading = leading_places(tree, interpreter)
    return Place(tree, interpreter, tuple(leading))


def _watched(repository: Repository) -> Callable[[], None]:
    """Return what raises CannotCompare where the working tree is no longer what it was."""
    before = repository.state()

    def check() -> None:
        if repository.state() != before:
            raise CannotCompare(
                "the working tree was edited while it was measured, and some restarts ran other "
                "code than others: commit it and name the commit, nnscale ab BASE HEAD, or wait"
            )

    return check
