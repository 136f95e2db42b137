"""`nnscale ab`: the words of the command line, and what is said in return."""

from __future__ import annotations

import json as json_text
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from pytest_nnscale.ab.comparison import Report
from pytest_nnscale.ab.ratio import Change
from pytest_nnscale.ab.session import Asked, compare_revisions
from pytest_nnscale.ab.stopping import Stopped, stopping
from pytest_nnscale.ab.trial import Plan
from pytest_nnscale.errors import BadOption, CannotCompare
from pytest_nnscale.exits import Exit

_ARGUMENTS = "pytest_nnscale.ab.arguments"
_OURS = (Change.SLOWER, Change.FASTER, Change.SAME, Change.INCONCLUSIVE)


class AbCommand(TyperCommand):
    """A command that leaves what follows `--` to pytest."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what comes before `--`."""
        place = args.index("--") if "--" in args else len(args)
        ctx.meta[_ARGUMENTS] = tuple(args[place + 1 :])
        return super().parse_args(ctx, args[:place])

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Name pytest's arguments in the line of usage."""
        return [*super().collect_usage_pieces(ctx), "[-- PYTEST ARGS]"]


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

    Exits with 0 where nothing is slower, 1 where something is, 2 where something did not work, 3
    where something is inconclusive and --strict is given, 5 where nothing was measured.
    """
    from pytest_nnscale.ab.progress import shown_progress
    from pytest_nnscale.timing.quiet import Quiet

    try:
        plan = Plan(threshold=read_threshold(threshold), max_time_s=max_time)
        targets = _targets(json, markdown)
        asked = Asked(
            base, head, arguments_of(ctx), plan, confidence, setup, base_python, head_python
        )
        with stopping(), shown_progress() as progress:
            report = compare_revisions(asked, folder=Path.cwd(), progress=progress, quiet=Quiet())
        _tell(report, targets)
        _warn_of_noise(report)
    except BadOption as error:
        stop(str(error))
    except CannotCompare as error:
        if error.output:
            typer.echo(error.output.rstrip("\n"), err=True)
        stop(str(error))
    except Stopped as stopped:
        typer.echo("nnscale: stopped; its worktrees and processes are gone", err=True)
        raise typer.Exit(128 + stopped.number) from None
    for each in report.comparisons:
        if each.output:
            typer.echo(f"\n{each.test}\n{each.output}", err=True)
    code = exit_of(report, strict=strict)
    if code is Exit.NOTHING:
        typer.echo(f"nnscale: {why_nothing(report)}", err=True)
    raise typer.Exit(code)


def arguments_of(ctx: typer.Context) -> tuple[str, ...]:
    """Return what followed `--`."""
    found: tuple[str, ...] = ctx.meta[_ARGUMENTS]
    return found


def exit_of(report: Report, *, strict: bool) -> Exit:
    """Return what a report ends the command with."""
    counts = report.counts
    if Change.SLOWER in counts:
        return Exit.RED
    if Change.UNMEASURED in counts:
        return Exit.ERROR
    if not any(change in counts for change in _OURS):
        return Exit.NOTHING
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
    return "nothing was measured: no test can be timed on both sides"


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


def _targets(json: str | None, markdown: str | None) -> dict[str, str | None]:
    """See, before the hour that it takes, that what was asked for can be written."""
    if json == markdown == "-":
        raise BadOption("--json and --markdown cannot both go to stdout: give one a file")
    for option, target in (("--json", json), ("--markdown", markdown)):
        folder = Path(target or "-").absolute().parent
        if not (folder.is_dir() and os.access(folder, os.W_OK)) or Path(target or "-").is_dir():
            raise BadOption(f"{option}: {target!r} cannot be written")
    return {"json": json, "markdown": markdown}


def _tell(report: Report, targets: dict[str, str | None]) -> None:
    from pytest_nnscale.report.ab import ab_lines, ab_markdown

    texts = {
        "json": lambda: json_text.dumps(report.to_dict(), allow_nan=False, indent=2) + "\n",
        "markdown": lambda: ab_markdown(report),
    }
    # Only what was asked for goes to a stdout that is piped into something.
    for line in ab_lines(report):
        typer.echo(line, err="-" in targets.values())
    for kind, target in targets.items():
        if target == "-":
            typer.echo(texts[kind](), nl=False)
        elif target is not None:
            _write(Path(target), texts[kind]())


def _warn_of_noise(report: Report) -> None:
    """Say of which tests this machine cannot tell what the threshold asks for."""
    from pytest_nnscale.noise import Noise, any_known, whole_id

    if not any_known():
        return
    noise = Noise()
    for each in report.comparisons:
        floor = noise.recall(whole_id(each.test, Path.cwd()), each.call)
        if floor is not None and floor.ratio > report.threshold:
            typer.echo(
                f"warning: {each.test}: the threshold is {100 * report.threshold:g} %, and on this "
                f"machine identical code is up to {100 * floor.ratio:.1f} % apart (nnscale calibrate)",
                err=True,
            )


def _write(path: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8") as out:  # noqa: PTH123 - a descriptor
            out.write(text)
        # What mkstemp makes is for its owner alone.
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def stop(message: str) -> NoReturn:
    """End the command with one sentence about what did not work."""
    typer.echo(f"nnscale: {' '.join(message.split())}", err=True)
    raise typer.Exit(Exit.ERROR)
