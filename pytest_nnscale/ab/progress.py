"""The progress of a comparison: a bar on a terminal's stderr, and nothing anywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pytest_nnscale.ab.restarts import Progress


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Hand out what shows how far it is; a test in one restart is one step."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _what, _done, _planned: None
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
