"""`nnscale calibrate`: how far apart identical code is on this machine, stored test by test."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pytest_nnscale.ab.command import read_seconds, why_nothing
from pytest_nnscale.ab.ending import arguments_of, stop
from pytest_nnscale.ab.identical import compare_with_itself
from pytest_nnscale.ab.pair import Plan
from pytest_nnscale.ab.stopping import stopping
from pytest_nnscale.errors import CannotCompare
from pytest_nnscale.exits import Exit


def calibrate(
    ctx: typer.Context,
    restarts: Annotated[
        int, typer.Option(help="how often pytest is started for each side", min=6)
    ] = 6,
    max_wait: Annotated[
        float, typer.Option(help="seconds to wait for a quiet machine, each time", min=0)
    ] = 600.0,
) -> None:
    """Measure how far apart two times of identical code are on this machine, and store it.

    Every test with a budget for its time takes turns with itself, as in `nnscale ab`. Budgets and
    thresholds that ask for less get a warning from then on. All is measured within minutes: what
    changes from day to day is beyond it. What follows -- goes to pytest.

    Exits with 0 where every test was measured, 2 where one was not or something did not work, 5 where
    nothing was measured.
    """
    from pytest_nnscale.ab.progress import shown_progress
    from pytest_nnscale.noise import Noise, floor_of, whole_id
    from pytest_nnscale.report.noise import noise_lines
    from pytest_nnscale.timing.quiet import Quiet

    if os.name != "posix":
        raise CannotCompare(
            "nnscale calibrate hands pipes to its workers, for which it needs POSIX"
        )
    plan = Plan(max_time_s=0.0, least=restarts)
    folder = Path.cwd()
    quiet = Quiet(read_seconds("--max-wait", max_wait))
    with stopping(), shown_progress() as progress:
        report = compare_with_itself(
            folder, arguments_of(ctx), plan=plan, progress=progress, quiet=quiet
        )
    # The suite may have set another number than this process has.
    noise = Noise(threads=report.head.threads)
    floors = []
    for each in report.comparisons:
        timing = each.timing
        floor = None
        if timing is not None:
            floor = floor_of(timing.logs, timing.seconds, report.confidence)
            noise.remember(whole_id(folder / each.file, each.test), each.call, each.phase, floor)
        floors.append((each, floor))
    for line in noise_lines(floors, str(noise.machine), report.restarts):
        typer.echo(line)
    if noise.trouble:
        stop(noise.trouble)
    if not any(floor for _, floor in floors):
        stop(why_nothing(report), Exit.NOTHING)
    if not all(floor for _, floor in floors):
        raise typer.Exit(Exit.ERROR)
