"""`nnscale ab`: the words of the command line, and what is said in return."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from pytest_nnscale.ab.comparison import Report
from pytest_nnscale.ab.ending import arguments_of
from pytest_nnscale.ab.output import find_targets, tell, warn_of_noise
from pytest_nnscale.ab.pair import Plan
from pytest_nnscale.ab.ratio import Change
from pytest_nnscale.ab.session import Asked, compare_revisions
from pytest_nnscale.ab.stopping import stopping
from pytest_nnscale.errors import BadOption
from pytest_nnscale.exits import Exit

_MEASURED = (Change.SLOWER, Change.FASTER, Change.SAME, Change.INCONCLUSIVE)


def ab(
    ctx: typer.Context,
    base: Annotated[str, typer.Argument(metavar="BASE", help="a revision to compare with")],
    head: Annotated[
        str | None,
        typer.Argument(metavar="HEAD", help="a revision; the working tree, as it is, without"),
    ] = None,
    threshold: Annotated[
        str, typer.Option(help="how much slower is slower, such as 5% or 0.05")
    ] = "5%",
    confidence: Annotated[
        float | None,
        typer.Option(help="of the intervals; nnscale_confidence without", min=0.5, max=0.9999),
    ] = None,
    max_time: Annotated[
        float, typer.Option(help="seconds for each test; six restarts are always made", min=0)
    ] = 60.0,
    max_wait: Annotated[
        float, typer.Option(help="seconds to wait for a quiet machine, each time", min=0)
    ] = 600.0,
    strict: Annotated[
        bool, typer.Option("--strict", help="exit with 3 where a test is inconclusive")
    ] = False,
    setup: Annotated[
        str | None,
        typer.Option(metavar="CMD", help="run in each tree first, such as a native build"),
    ] = None,
    base_python: Annotated[
        str | None, typer.Option(metavar="PYTHON", help="the interpreter that runs base")
    ] = None,
    head_python: Annotated[
        str | None, typer.Option(metavar="PYTHON", help="the interpreter that runs head")
    ] = None,
    json: Annotated[
        str | None, typer.Option(metavar="FILE", help="write everything as JSON; - for stdout")
    ] = None,
    markdown: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="write a table for a pull request; - for stdout"),
    ] = None,
) -> None:
    """Compare the time of every test with max_latency_ms between two revisions, on this machine.

    Both run here, now, and in turns: pytest is started for each of them over and over, and one times
    while the other waits. What follows -- goes to pytest.

    Exits with 0 where nothing is slower, 1 where something is, 2 where something did not work or a
    part was not measured, 3 where something is inconclusive and --strict is given, 5 where nothing
    was measured.
    """
    from pytest_nnscale.ab.progress import shown_progress
    from pytest_nnscale.timing.quiet import Quiet

    plan = Plan(
        threshold=read_threshold(threshold), max_time_s=read_seconds("--max-time", max_time)
    )
    quiet = Quiet(read_seconds("--max-wait", max_wait))
    targets = find_targets(json, markdown)
    asked = Asked(base, head, arguments_of(ctx), plan, confidence, setup, base_python, head_python)
    with stopping(), shown_progress() as progress:
        report = compare_revisions(asked, folder=Path.cwd(), progress=progress, quiet=quiet)
    tell(report, targets)
    warn_of_noise(report, Path.cwd())
    for each in report.comparisons:
        if each.output:
            typer.echo(f"\n{each.test}\n{each.output}", err=True)
    code = exit_of(report, strict=strict)
    if code is Exit.NOTHING:
        typer.echo(f"nnscale: {why_nothing(report)}", err=True)
    raise typer.Exit(code)


def exit_of(report: Report, *, strict: bool) -> Exit:
    """Return what a report ends the command with."""
    counts = report.counts
    if Change.SLOWER in counts:
        return Exit.RED
    if not any(change in counts for change in _MEASURED):
        return Exit.NOTHING
    if Change.UNMEASURED in counts:
        return Exit.ERROR
    return Exit.INCONCLUSIVE if strict and Change.INCONCLUSIVE in counts else Exit.FINE


def why_nothing(report: Report) -> str:
    """Say why nothing was measured, and what to do."""
    counts = report.counts
    if counts.keys() == {Change.ONLY_IN_HEAD}:
        return (
            "nothing was measured: base has none of head's tests with a budget for latency; state the "
            "budget for both: nnscale ab BASE -- --nnscale-budgets 'tests/*: max_latency_ms=1000'"
        )
    if not counts:
        return (
            "nothing was measured: no test of either side has a budget for latency; mark one with "
            "@pytest.mark.max_latency_ms(...), or look at what is handed to pytest after --"
        )
    return "nothing was measured: no test can be timed on both sides; the lines above say why"


def read_threshold(text: str) -> float:
    """Read "5%" or "0.05"; BadOption where it is neither."""
    number, percent, rest = text.strip().partition("%")
    try:
        threshold = float(number) / (100 if percent else 1)
    except ValueError:
        threshold = -1.0
    # A bare 5 could be five per cent as well as five times.
    if rest or not 0 < threshold < 1:
        raise BadOption(f"--threshold: {text!r} is not between 0 and 100 %, such as 5% or 0.05")
    return threshold


def read_seconds(option: str, seconds: float) -> float:
    """Return a length of time that ends; BadOption for another."""
    if not math.isfinite(seconds):
        raise BadOption(f"{option}: {seconds:g} is no number of seconds, such as 60")
    return seconds
