"""One frozen Options, resolved once: command line, then ini, then default."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from pytest_nnscale.errors import BadOption
from pytest_nnscale.marks import DEVICES

if TYPE_CHECKING:
    from pytest_nnscale.rules import Rule

REQUIRABLE = ("energy", *(device for device in DEVICES if device not in ("cpu", "meta")))


def _rules(lines: list[str]) -> tuple[Rule, ...]:
    from pytest_nnscale.rules import parse_rule

    return tuple(parse_rule(line) for line in lines if line.strip())


def _one_of(*valid: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in valid:
            raise BadOption(f"{text!r} is not one of {', '.join(valid)}")
        return text

    return parse


def _required(texts: list[str]) -> frozenset[str]:
    names = [name for text in texts for name in text.replace(",", " ").split()]
    for name in names:
        if name not in REQUIRABLE:
            raise BadOption(f"{name!r} is not one of {', '.join(REQUIRABLE)}")
    return frozenset(names)


def _seconds(text: str) -> float:
    return _number(text, above=0.0, below=math.inf, meaning="seconds above zero")


def _confidence(text: str) -> float:
    return _number(text, above=0.5, below=1.0, meaning="between 0.5 and 1, such as 0.99")


def _number(text: str, *, above: float, below: float, meaning: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not above < number < below:
        raise BadOption(f"{text!r} is not {meaning}")
    return number


def _option(
    default: Any, parse: Callable[[Any], Any], meaning: str, *, repeats: str = "", metavar: str
) -> Any:
    return field(
        default=default,
        metadata={"parse": parse, "help": meaning, "ini": repeats or "string", "metavar": metavar},
    )


@dataclass(frozen=True, slots=True)
class Options:
    """What the session was asked; a field is a flag `--nnscale-...` and an ini key `nnscale_...`."""

    budgets: tuple[Rule, ...] = _option(
        (),
        _rules,
        "budgets for tests by node-id glob, a rule a line: "
        "'tests/models/*: max_params=100M, max_flops=20 GFLOP' (later rules win, marks win over all)",
        repeats="linelist",
        metavar="RULE",
    )
    require: frozenset[str] = _option(
        frozenset(),
        _required,
        f"what this machine must be able to measure, else fail: {', '.join(REQUIRABLE)}",
        repeats="args",
        metavar="NAME",
    )
    inconclusive: str = _option(
        "warn",
        _one_of("warn", "fail"),
        "what a budget inside the interval of a noisy measurement does: warn or fail (warn)",
        metavar="warn|fail",
    )
    max_time: float = _option(
        5.0, _seconds, "seconds that one sampled budget may take (5)", metavar="SECONDS"
    )
    confidence: float = _option(
        0.99, _confidence, "confidence of sampled intervals (0.99)", metavar="FRACTION"
    )


def declare(add_flag: Callable[..., Any], add_ini: Callable[..., Any]) -> None:
    """Declare every field as a command-line flag and as an ini key."""
    for option in fields(Options):
        meta = option.metadata
        repeats = meta["ini"] != "string"
        add_flag(
            f"--nnscale-{option.name.replace('_', '-')}",
            action="append" if repeats else "store",
            default=None,
            metavar=meta["metavar"],
            dest=f"nnscale_{option.name}",
            help=meta["help"].replace("%", "%%"),
        )
        # None tells a key that is not there from one that is empty.
        add_ini(f"nnscale_{option.name}", meta["help"], type=meta["ini"], default=None)


def resolve(flag: Callable[[str], Any], ini: Callable[[str], Any]) -> Options:
    """Take each field from its flag, else its ini key, else its default; BadOption names it."""
    chosen: dict[str, Any] = {}
    for option in fields(Options):
        for spelling, source in (
            (f"--nnscale-{option.name.replace('_', '-')}", flag(f"nnscale_{option.name}")),
            (f"nnscale_{option.name}", ini(f"nnscale_{option.name}")),
        ):
            if source is None or source == []:
                continue
            try:
                chosen[option.name] = option.metadata["parse"](source)
            except BadOption as error:
                prefix = "" if str(error).startswith("nnscale_") else f"{spelling}: "
                raise BadOption(f"{prefix}{error}") from error
            break
    return Options(**chosen)
