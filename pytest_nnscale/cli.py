"""The nnscale command."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pytest_nnscale.ab.calibrate import calibrate
from pytest_nnscale.ab.command import ab
from pytest_nnscale.ab.ending import AbCommand, GuardedGroup, stop
from pytest_nnscale.budget import Phase
from pytest_nnscale.errors import BadOption, BadWorkload, CannotMeasure, shown
from pytest_nnscale.exits import Exit
from pytest_nnscale.measurement import Metric
from pytest_nnscale.power.command import energy

if TYPE_CHECKING:
    import torch

app = typer.Typer(
    cls=GuardedGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Compute budgets of neural networks: parameters, FLOPs, memory, time, energy.",
)


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
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            metavar="KEY=VALUE",
            help="how time and energy are sampled, by ini key, such as nnscale_max_time=20",
        ),
    ] = None,
    depth: Annotated[int, typer.Option(help="how deep the table of modules goes", min=0)] = 2,
    json: Annotated[bool, typer.Option("--json", help="print JSON instead of the table")] = False,
) -> None:
    """Print what one call of a model costs; without --input only its params and size.

    Exits with 5 where nothing could be measured, 2 where something asked for could not, or where it
    was not asked rightly.
    """
    from pytest_nnscale.profiling import profile as measure
    from pytest_nnscale.report.table import profile_table

    try:
        wanted = _metrics(metrics, runs=bool(input))
        options = _options(option or [])
        _check_device(device)
        args = tuple(_tensor(shape, dtype, device) for shape in input or ()) or None
        model = _on(load(target), device).train(phase == "training")
        with _progress(target, quiet=json):
            found = measure(model, args, phase=phase, metrics=wanted, options=options)
    except CannotMeasure as error:
        stop(_joined(error.reason, error.remedy), Exit.NOTHING)
    except (BadOption, BadWorkload) as error:
        stop(str(error))
    except Exception as error:
        stop(f"{target} raised {_told(error)}")
    missing = [m for m in found.measurements if m.value is None]
    if len(missing) == len(found.measurements):
        told = _joined(*(text for m in missing for text in (m.reason, m.remedy)))
        stop(told, Exit.NOTHING)
    if json:
        print(found.to_json())
    else:
        from rich.console import Console

        print(profile_table(found, width=Console().width, depth=depth))
    if missing:
        raise typer.Exit(Exit.ERROR)


@app.command()
def crosscheck(
    target: Annotated[
        str, typer.Argument(metavar="PKG.MODULE:FACTORY", help="a model, or what builds one")
    ],
    input: Annotated[  # noqa: A002 - the flag's name
        list[str],
        typer.Option(metavar="SHAPE", help="an input's shape, 1,3,224,224; once for each input"),
    ],
    dtype: Annotated[str, typer.Option(help="dtype of the inputs; integers are zeros")] = "float32",
) -> None:
    """Print the FLOPs of one call beside those of every other counter that is installed."""
    from pytest_nnscale.observing import count_apart
    from pytest_nnscale.peers import opinions
    from pytest_nnscale.report.crosscheck import crosscheck_lines
    from pytest_nnscale.workload import Workload

    try:
        args = tuple(_tensor(shape, dtype, "cpu") for shape in input)
        model = load(target).eval()
        with _progress(target, quiet=False):
            count = count_apart(Workload(model, args)).count()
            others = opinions(model, args)
    except BadOption as error:
        stop(str(error))
    except Exception as error:
        stop(f"{target} raised {_told(error)}")
    by_operator = {work.operator: work.flops for work in count.by_operator}
    unknown = tuple(dict.fromkeys(each.operator for each in count.uncounted))
    for line in crosscheck_lines(count.flops, by_operator, unknown, others):
        print(line)


app.command("ab", cls=AbCommand)(ab)
app.command("calibrate", cls=AbCommand)(calibrate)
app.command("energy")(energy)


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
    if isinstance(found, torch.nn.Module):
        return found
    if not callable(found):
        raise BadOption(f"{target!r} is {shown(found)}, neither a torch.nn.Module nor a factory")
    model = found()
    if not isinstance(model, torch.nn.Module):
        raise BadOption(f"{target!r} gave {shown(model)}, not a torch.nn.Module")
    return model


def _metrics(text: str, *, runs: bool) -> list[str] | None:
    """Return the metrics that were named, None for none; BadOption for those that need a run."""
    names = text.replace(",", " ").split()
    for name in names:
        if not runs and any(m.value == name and not m.structural for m in Metric):
            raise BadOption(f"{name} takes a run of the model: give --input SHAPE")
    return names or None


def _options(texts: list[str]) -> dict[str, str]:
    """Return options by their ini keys, as pytest's own -o takes them; BadOption names a bad one."""
    from pytest_nnscale.options import resolve_sampling

    options = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise BadOption(f"--option {text!r} is not like nnscale_max_time=20")
        options[key] = value
    resolve_sampling(options)
    return options


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(1, device=device)
    except Exception as error:
        raise BadOption(f"--device {device!r} cannot be used: {_told(error)}") from error


def _on(model: torch.nn.Module, device: str) -> torch.nn.Module:
    try:
        return model.to(device)
    except Exception as error:
        raise BadOption(f"the model cannot be put on {device!r}: {_told(error)}") from error


def _tensor(shape: str, dtype: str, device: str) -> torch.Tensor:
    import torch

    try:
        # "" is the shape of a scalar; a size left out is none.
        sizes = [int(size) for size in shape.split(",")] if shape.strip() else []
    except ValueError:
        raise BadOption(f"--input {shape!r} is not a shape such as 1,3,224,224") from None
    if any(size < 0 for size in sizes):
        raise BadOption(f"--input {shape!r} has a negative size")
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise BadOption(f"--dtype {dtype!r} is not a dtype of torch, such as float32 or int64")
    fill = torch.rand if kind.is_floating_point else torch.zeros
    try:
        return fill(sizes, dtype=kind, device=device)
    except Exception as error:
        # More than memory holds, or a dtype that cannot be drawn at random.
        raise BadOption(f"--input {shape!r} cannot be made: {_told(error)}") from error


def _progress(target: str, *, quiet: bool) -> Any:
    from contextlib import nullcontext

    from rich.console import Console

    console = Console(stderr=True)
    return (
        nullcontext() if quiet or not console.is_terminal else console.status(f"profiling {target}")
    )


def _joined(*texts: str) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else f"{text[:297]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
