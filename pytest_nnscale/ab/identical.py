"""The working tree against itself: what is left between the two is the machine's noise."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pytest_nnscale.ab.comparison import Report
from pytest_nnscale.ab.partner import Place
from pytest_nnscale.ab.restarts import Progress, Quiet, Restarts, Undisturbed
from pytest_nnscale.ab.tree import Tree, ask_interpreter, leading_places
from pytest_nnscale.ab.trial import Plan


def compare_with_itself(
    folder: Path,
    arguments: Sequence[str],
    *,
    plan: Plan,
    progress: Progress = lambda _what, _done, _planned: None,
    quiet: Quiet | None = None,
) -> Report:
    """Let a tree take turns with itself, as two revisions do; CannotCompare says what did not work."""
    places = []
    for side in ("base", "head"):
        tree = Tree(side, "the working tree", "", folder, folder, (), sys.executable)
        interpreter = ask_interpreter(tree)
        places.append(Place(tree, interpreter, tuple(leading_places(tree, interpreter))))
    base, head = places
    restarts = Restarts(
        base,
        head,
        arguments=arguments,
        plan=plan,
        confidence=None,
        quiet=quiet or Undisturbed(),
        progress=progress,
    )
    return restarts.compare()
