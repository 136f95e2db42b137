"""How a command ends where it cannot go on: a sentence on stderr, and the exit code that it has."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from pytest_nnscale.ab.stopping import Stopped
from pytest_nnscale.errors import BadOption, CannotCompare
from pytest_nnscale.exits import Exit

_STOPPED = "nnscale: stopped; its worktrees and processes are gone"
_ARGUMENTS = "pytest_nnscale.ab.arguments"


class GuardedGroup(TyperGroup):
    """Commands of which no error is taken for a result: what nobody thought of is none either."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with told():
            return super().invoke(ctx)


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


def arguments_of(ctx: typer.Context) -> tuple[str, ...]:
    """Return what followed `--`."""
    found: tuple[str, ...] = ctx.meta[_ARGUMENTS]
    return found


@contextmanager
def told() -> Iterator[None]:
    """Say what went wrong, and exit with what that comes to; a traceback where it was not foreseen."""
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except Stopped as stopped:
        typer.echo(_STOPPED, err=True)
        raise typer.Exit(128 + stopped.number) from None
    except CannotCompare as error:
        if error.output:
            typer.echo(error.output.rstrip("\n"), err=True)
        stop(str(error))
    except BadOption as error:
        stop(str(error))
    except Exception as error:
        # Those of the command line, which typer itself shows.
        if hasattr(error, "exit_code"):
            raise
        if not isinstance(error, OSError):
            typer.echo("".join(traceback.format_exception(error)).rstrip("\n"), err=True)
        stop(f"it did not work: {type(error).__name__}: {error}")


def stop(message: str, code: Exit = Exit.ERROR) -> NoReturn:
    """End a command with one sentence about what did not work."""
    typer.echo(f"nnscale: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)
