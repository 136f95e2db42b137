"""What a comparison says on stdout, on stderr, and in files."""

from __future__ import annotations

import json
import math
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import typer

from pytest_nnscale.ab.comparison import Report
from pytest_nnscale.errors import BadOption


def find_targets(json: str | None, markdown: str | None) -> dict[str, str | None]:
    """See, before the hour that it takes, that what was asked for can be written."""
    if json == markdown == "-":
        raise BadOption("--json and --markdown cannot both go to stdout: give one a file")
    for option, target in (("--json", json), ("--markdown", markdown)):
        folder = Path(target or "-").absolute().parent
        if not (folder.is_dir() and os.access(folder, os.W_OK)) or Path(target or "-").is_dir():
            raise BadOption(f"{option}: {target!r} cannot be written")
    return {"json": json, "markdown": markdown}


def tell(report: Report, targets: dict[str, str | None]) -> None:
    """Print the table, and write what was asked for; BadOption where that cannot be, after all."""
    from pytest_nnscale.report.ab import ab_lines, ab_markdown

    texts = {
        "json": lambda: json.dumps(report.to_dict(), allow_nan=False, indent=2) + "\n",
        "markdown": lambda: ab_markdown(report),
    }
    # Only what was asked for goes to a stdout that is piped into something.
    for line in ab_lines(report):
        typer.echo(line, err="-" in targets.values())
    for kind, target in targets.items():
        if target == "-":
            typer.echo(texts[kind](), nl=False)
        elif target is not None:
            try:
                _write(Path(target), texts[kind]())
            except OSError as error:
                raise BadOption(f"--{kind}: {target!r} cannot be written: {error}") from error


def warn_of_noise(report: Report, folder: Path) -> None:
    """Say of which tests this machine cannot tell what the threshold asks for."""
    from pytest_nnscale.noise import Noise, any_known, too_close, whole_id

    if not any_known():
        return
    noise = Noise(threads=report.head.threads)
    for each in report.comparisons:
        test = whole_id(folder / each.file, each.test)
        floor = noise.recall(test, each.call, each.phase)
        if floor is not None and floor.ratio > report.threshold:
            resolved = math.ceil(1000 * floor.ratio) / 10
            threshold = f"the threshold is {100 * report.threshold:g} %"
            which = each.test if each.phase == "inference" else f"{each.test} ({each.phase})"
            typer.echo(
                f"warning: {which}: {too_close(threshold, floor.ratio)}; "
                f"the smallest that it can tell is --threshold={resolved:g}%",
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
