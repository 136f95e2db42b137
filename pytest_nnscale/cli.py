"""The nnscale command."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pytest_nnscale.budget import Phase
from pytest_nnscale.errors import BadOption, BadWorkload, CannotMeasure

if TYPE_CHECKING:
    import torch

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Compute budgets of neural networks: parameters, FLOPs, memory, time, energy.",
)


@app.callback()
def nnscale() -> None:
    """Keep `profile` a subcommand while it is the only one."""


@app.command()
def profile(
    target: Annotated[
        str, typer.Argument(metavar="PKG.MODULE:FACTORY", help="a model, or what builds one")
    ],
    input: Annotated[  # noqa: A002 - the flag's name
        list[str] | None,
        typer.Option(metavar="SHAPE", help="an input's shape, 1,3,224,224; once for each input"),
    ] = None,
    dtype: Annotated[str, typer.Option(help="dtype of the inputs; integers are zeros")] = "float32",
    phase: Annotated[Phase, typer.Option(help="inference or training")] = "inference",
    device: Annotated[str, typer.Option(help="where to put the model and its inputs")] = "cpu",
    metrics: Annotated[
        str, typer.Option(help="what to measure, such as flops,latency; the exact ones if empty")
    ] = "",
    depth: Annotated[int, typer.Option(help="how deep the table of modules goes", min=0)] = 2,
    json: Annotated[bool, typer.Option("--json", help="print JSON instead of the table")] = False,
) -> None:
    """Print what one call of a model costs; without --input only its params and size."""
    from pytest_nnscale.profiling import profile as measure
    from pytest_nnscale.report.table import profile_table

    try:
        model = load(target)
        args = tuple(_tensor(shape, dtype, device) for shape in input or ()) or None
        model = model.to(device).train(phase == "training")
        with _progress(target, quiet=json):
            found = measure(
                model,
                args,
                phase=phase,
                metrics=metrics or None,
            )
    except (BadOption, BadWorkload, CannotMeasure) as error:
        _stop(str(error))
    except Exception as error:
        _stop(f"{target} raised {type(error).__name__}: {error}")
    if json:
        print(found.to_json())
    else:
        from rich.console import Console

        print(profile_table(found, width=Console().width, depth=depth))


def load(target: str) -> torch.nn.Module:
    """Import `pkg.module:name` and return the model it is or builds; BadOption says what failed."""
    import torch

    module_name, colon, name = target.partition(":")
    if not (module_name and colon and name):
        raise BadOption(f"{target!r} is not like pkg.module:factory")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise BadOption(f"{target!r} cannot be loaded: {error}") from error
    finally:
        sys.path.remove(str(Path.cwd()))
    model = found if isinstance(found, torch.nn.Module) else found()
    if not isinstance(model, torch.nn.Module):
        raise BadOption(f"{target!r} gave a {type(model).__name__}, not a torch.nn.Module")
    return model


def _tensor(shape: str, dtype: str, device: str) -> torch.Tensor:
    import torch

    try:
        sizes = [int(size) for size in shape.split(",") if size.strip()]
    except ValueError:
        raise BadOption(f"--input {shape!r} is not a shape such as 1,3,224,224") from None
    if any(size < 0 for size in sizes):
        raise BadOption(f"--input {shape!r} has a negative size")
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise BadOption(f"--dtype {dtype!r} is not a dtype of torch, such as float32 or int64")
    if kind.is_floating_point:
        return torch.rand(sizes, dtype=kind, device=device)
    return torch.zeros(sizes, dtype=kind, device=device)


def _progress(target: str, *, quiet: bool) -> Any:
    from contextlib import nullcontext

    from rich.console import Console

    console = Console(stderr=True)
    return (
        nullcontext() if quiet or not console.is_terminal else console.status(f"profiling {target}")
    )


def _stop(message: str) -> None:
    typer.echo(f"nnscale: {message}", err=True)
    raise typer.Exit(2)
