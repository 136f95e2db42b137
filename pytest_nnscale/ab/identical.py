"""The working tree against itself: what is left between the two is the machine's noise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pytest_nnscale.ab.comparison import Report
from pytest_nnscale.ab.meeting import Quiet, Undisturbed
from pytest_nnscale.ab.pair import Plan
from pytest_nnscale.ab.partner import Place
from pytest_nnscale.ab.restarts import Progress, Restarts
from pytest_nnscale.ab.revision import Repository
from pytest_nnscale.ab.state import watch
from pytest_nnscale.ab.tree import Tree
from pytest_nnscale.errors import BadOption, CannotCompare


def compare_with_itself(
    folder: Path,
    arguments: Sequence[str],
    *,
    plan: Plan,
    progress: Progress = lambda _what, _done, _planned: None,
    quiet: Quiet | None = None,
) -> Report:
    """Let a tree take turns with itself, as two revisions do; CannotCompare says what did not work.

    Modules come from wherever a test finds them, a wheel as well: it is the same place for both.
    """
    places = [
        Place(Tree(side, "the working tree", "", folder, folder, (), sys.executable))
        for side in ("base", "head")
    ]
    restarts = Restarts(
        *places,
        arguments=arguments,
        plan=plan,
        confidence=None,
        quiet=quiet or Undisturbed(),
        progress=progress,
        unchanged=_watched(folder),
    )
    return restarts.compare()


def _watched(folder: Path) -> Callable[[], None]:
    """Return what raises where the folder's code was edited; without git nobody knows that."""
    try:
        repository = Repository(folder)
        commit = repository.resolve("HEAD")
    except (BadOption, CannotCompare):
        return lambda: None
    return watch(repository.root, commit)
