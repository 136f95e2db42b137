"""The progress of a comparison: a bar on a terminal's stderr, a line for each restart elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_nnscale.ab.restarts import WAITING, Progress

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Hand out what shows how far it is; a test in one restart is one step."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    # It is drawn between the turns alone: a thread that draws would disturb them.
    with Bar(*columns, console=console, transient=True, auto_refresh=False) as bar:
        task = bar.add_task("starting", total=None)

        def show(what: str, done: int, planned: int) -> None:
            bar.update(task, description=what, completed=done, total=planned or None, refresh=True)

        yield show


def _lines(console: Console) -> Progress:
    """Return what prints a line for each restart, and for what is waited for."""
    last = ""

    def show(what: str, done: int, planned: int) -> None:
        nonlocal last
        restart, _, _ = what.partition(":")
        if restart == last:
            return
        # A restart that goes on after a wait is still the same.
        waits = what.startswith(WAITING)
        last = last if waits else restart
        so_far = f", {done} of {planned} steps done" if planned else ""
        line = what if waits else f"{restart}{so_far}"
        console.print(f"nnscale: {line}", markup=False, highlight=False, soft_wrap=True)

    return show
