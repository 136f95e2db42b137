"""One frozen Options, resolved once: command line, then ini, then default."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any

from pytest_nnscale.budget import Budget
from pytest_nnscale.errors import BadBudget, BadOption
from pytest_nnscale.marks import DEVICES, MARK_OF, parse_mark

REQUIRABLE = ("energy", *(device for device in DEVICES if device not in ("cpu", "meta")))
_RULE = re.compile(r"(?P<glob>.*?\S)\s*:\s+(?P<budgets>\w+\s*=.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rule:
    """Budgets for every test whose node id matches a glob."""

    glob: str
    budgets: tuple[Budget, ...]

    def matches(self, nodeid: str) -> bool:
        """Tell whether a node id is meant; `*` crosses folders, as in fnmatch.

        A node id means itself, although the brackets of its parametrisation are a set to fnmatch.
        """
        return nodeid == self.glob or fnmatchcase(nodeid, self.glob)


def parse_rule(line: str) -> Rule:
    """Read `tests/models/*: max_params=100M, max_flops=20 GFLOP`."""
    match = _RULE.fullmatch(line.strip())
    if match is None:
        raise BadOption(
            f"nnscale_budgets: {line.strip()!r} is not GLOB: max_...=LIMIT, ...; "
            "for example  tests/models/*: max_params=100M, max_flops=20 GFLOP"
        )
    budgets: dict[str, Budget] = {}
    # A comma followed by name= starts the next budget; any other groups digits.
    for part in re.split(r",\s*(?=[A-Za-z_]\w*\s*=)", match["budgets"]):
        name, _, limit = (piece.strip() for piece in part.partition("="))
        spec = MARK_OF.get(name)
        if spec is None:
            raise BadOption(
                f"nnscale_budgets: unknown mark {name!r} in {line.strip()!r}; "
                f"valid are {', '.join(MARK_OF)}"
            )
        if name in budgets:
            raise BadOption(f"nnscale_budgets: {name} twice in {line.strip()!r}; keep one")
        try:
            budgets[name] = parse_mark(
                spec,
                (limit.rstrip(", "),),
                {},
                parametrisation=None,
                origin=f"nnscale_budgets {match['glob']!r}",
                own=False,
            )
        except BadBudget as error:
            raise BadOption(f"nnscale_budgets: {name} in {line.strip()!r}: {error}") from error
    return Rule(match["glob"], tuple(budgets.values()))


def _rules(lines: list[str]) -> tuple[Rule, ...]:
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
