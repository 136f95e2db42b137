"""`nnscale calibrate`: how far apart identical code is on this machine, stored test by test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pytest_nnscale.ab.command import arguments_of, stop, why_nothing
from pytest_nnscale.ab.identical import compare_with_itself
from pytest_nnscale.ab.stopping import Stopped, stopping
from pytest_nnscale.ab.trial import Plan
from pytest_nnscale.errors import CannotCompare
from pytest_nnscale.exits import Exit


def calibrate(
    ctx: typer.Context,
    restarts: Annotated[
        int, typer.Option(help="how often pytest is started for each side", min=6)
    ] = 6,
) -> None:
    """Measure how far apart two times of identical code are on this machine, and store it.

    Every test with max_latency_ms takes turns with itself, as in `nnscale ab`. Budgets and thresholds
    that ask for less get a warning from then on. What follows -- goes to pytest.

    Exits with 0 where every test was measured, 1 where one was not, 2 where something did not work,
    5 where nothing was measured.
    """
    from pytest_nnscale.ab.progress import shown_progress
    from pytest_nnscale.noise import Noise, floor_of, whole_id
    from pytest_nnscale.report.noise import noise_lines
    from pytest_nnscale.timing.quiet import Quiet

    plan = Plan(max_time_s=0.0, least=restarts)
    folder = Path.cwd()
    try:
        with stopping(), shown_progress() as progress:
            report = compare_with_itself(
                folder, arguments_of(ctx), plan=plan, progress=progress, quiet=Quiet()
            )
    except CannotCompare as error:
        if error.output:
            typer.echo(error.output.rstrip("\n"), err=True)
        stop(str(error))
    except Stopped as stopped:
        typer.echo("nnscale: stopped; its processes are gone", err=True)
        raise typer.Exit(128 + stopped.number) from None
    noise = Noise()
    floors = []
    for each in report.comparisons:
        timing = each.timing
        floor = None
        if timing is not None:
            floor = floor_of(timing.logs, timing.seconds, report.confidence)
            noise.remember(whole_id(each.test, folder), each.call, floor)
        floors.append((each, floor))
    for line in noise_lines(floors, str(noise.machine), report.restarts):
        typer.echo(line)
    if noise.trouble:
        stop(noise.trouble)
    if not any(floor for _, floor in floors):
        typer.echo(f"nnscale: {why_nothing(report)}", err=True)
        raise typer.Exit(Exit.NOTHING)
    if not all(floor for _, floor in floors):
        raise typer.Exit(Exit.RED)
