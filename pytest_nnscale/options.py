"""One frozen Options, resolved once: command line, then ini, then default."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_nnscale.errors import BadOption, shown
from pytest_nnscale.marks import DEVICES, close_to

if TYPE_CHECKING:
    from pytest_nnscale.power.wanted import Wanted
    from pytest_nnscale.rules import Rule

SOURCES = ("auto", "nvml", "rapl", "zeus", "estimate")
SCOPES = ("device", "machine")
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


def _operators(texts: list[str]) -> frozenset[str]:
    from pytest_nnscale.counting.declared import parse_names

    return parse_names(texts)


def _yes_or_no(text: str) -> bool:
    return _one_of("yes", "no")(text) == "yes"


def _seconds(text: str) -> float:
    return _number(text, above=0.0, below=math.inf, meaning="seconds above zero")


def _watts(text: str) -> float:
    return _number(text, above=0.0, below=math.inf, meaning="watts above zero")


def _grams(text: str) -> float:
    return _number(text, above=-1e-300, below=math.inf, meaning="grams of CO2 a kWh, zero or above")


def powercap_root(text: str) -> str:
    """Return the folder of a powercap tree; BadOption where it is none."""
    from pathlib import Path

    from pytest_nnscale.power.powercap import broken_links, zones_of

    root = Path(text)
    broken = broken_links(root)
    if broken:
        raise BadOption(
            f"{text!r} has links to nowhere, {', '.join(broken)}: mount what they lead to, as in "
            "-v /sys/devices/virtual/powercap:/host/powercap:ro"
        )
    if not root.is_dir() or not any(zones_of(root)):
        raise BadOption(
            f"{text!r} is no powercap tree: it holds folders such as intel-rapl:0, as "
            "/sys/class/powercap does"
        )
    return text


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


class Option(NamedTuple):
    """One option: a flag `--nnscale-...`, an ini key `nnscale_...`, and a field of Options."""

    name: str
    parse: Callable[[Any], Any]
    help: str
    metavar: str
    repeats: str = ""

    @property
    def key(self) -> str:
        """The ini key, and pytest's own name for the flag."""
        return f"nnscale_{self.name}"

    @property
    def flag(self) -> str:
        """The flag as it is typed."""
        return f"--nnscale-{self.name.replace('_', '-')}"


OPTIONS = (
    Option(
        "budgets",
        _rules,
        "budgets for tests by node-id glob, a rule a line: "
        "'tests/models/*: max_params=100M, max_flops=20 GFLOP' (later rules win, marks win over all)",
        "RULE",
        repeats="linelist",
    ),
    Option(
        "require",
        _required,
        f"what this machine must be able to measure, else fail: {', '.join(REQUIRABLE)}",
        "NAME",
        repeats="args",
    ),
    Option(
        "inconclusive",
        _one_of("warn", "fail"),
        "what a budget inside the interval of a noisy measurement does: warn or fail (warn)",
        "warn|fail",
    ),
    Option(
        "free_operators",
        _operators,
        "operators without a formula that are known to do no contraction work: my::op",
        "NAME",
        repeats="args",
    ),
    Option("max_time", _seconds, "seconds that one sampled budget may take (5)", "SECONDS"),
    Option("confidence", _confidence, "confidence of sampled intervals (0.99)", "FRACTION"),
    Option(
        "max_wait",
        _seconds,
        "seconds that a sampled measurement waits for the other tests of this machine to end, and a "
        "test for what is measured, which it spoils if it then goes on; longer than max_time (600)",
        "SECONDS",
    ),
    Option(
        "flush_l2",
        _yes_or_no,
        "empty the L2 cache of a GPU before each call that is timed on it: yes or no (no)",
        "yes|no",
    ),
    Option(
        "energy",
        _one_of("total", "above_idle"),
        "joules that count: total, or above_idle, without what the idle machine draws (total)",
        "total|above_idle",
    ),
    Option(
        "energy_scope",
        _one_of(*SCOPES),
        "whose joules count: device, or machine, the CPU beside the GPU (device)",
        "|".join(SCOPES),
    ),
    Option(
        "energy_source",
        _one_of(*SOURCES),
        f"where joules come from: {', '.join(SOURCES)}; an estimate is no measurement (auto)",
        "SOURCE",
    ),
    Option(
        "watts_per_core",
        _watts,
        "what an estimate of energy assumes that a busy core draws",
        "WATTS",
    ),
    Option(
        "grid_gco2_per_kwh",
        _grams,
        "grams of CO2 a kWh of the grid, to tell grams beside joules",
        "GRAMS",
    ),
    Option(
        "powercap_root",
        powercap_root,
        "where the powercap tree is mounted (/sys/class/powercap)",
        "FOLDER",
    ),
)


# NamedTuples here, since making a dataclass takes a millisecond of every pytest run.
class Options(NamedTuple):
    """What the session was asked; the fields are the names of the table above."""

    budgets: tuple[Rule, ...] = ()
    require: frozenset[str] = frozenset()
    inconclusive: str = "warn"
    free_operators: frozenset[str] = frozenset()
    max_time: float = 5.0
    confidence: float = 0.99
    max_wait: float = 600.0
    flush_l2: bool = False
    energy: str = "total"
    energy_scope: str = "device"
    energy_source: str = "auto"
    watts_per_core: float | None = None
    grid_gco2_per_kwh: float | None = None
    powercap_root: str | None = None

    @property
    def wanted(self) -> Wanted:
        """Which joules are wanted."""
        from pathlib import Path

        from pytest_nnscale.power.wanted import POWERCAP_ROOT, Wanted

        return Wanted(
            self.energy_source,
            self.energy_scope,
            self.energy == "above_idle",
            Path(self.powercap_root or POWERCAP_ROOT),
            self.watts_per_core,
            self.grid_gco2_per_kwh,
        )


# What says how something is sampled, which a profile does as well; the rest is about tests.
SAMPLING = tuple(
    option.key
    for option in OPTIONS
    if option.name not in ("budgets", "require", "inconclusive", "free_operators")
)


def declare(add_flag: Callable[..., Any], add_ini: Callable[..., Any]) -> None:
    """Declare every option as a command-line flag and as an ini key."""
    for option in OPTIONS:
        add_flag(
            option.flag,
            action="append" if option.repeats else "store",
            default=None,
            metavar=option.metavar,
            dest=option.key,
            help=option.help.replace("%", "%%"),
        )
        # None tells a key that is not there from one that is empty.
        add_ini(option.key, option.help, type=option.repeats or "string", default=None)


def refuse_unknown(keys: Iterable[str]) -> None:
    """Raise BadOption for an ini key that looks like one of ours and is none."""
    for key in keys:
        if key.startswith("nnscale_"):
            valid = [option.key for option in OPTIONS]
            raise BadOption(
                f"unknown ini key {key!r}; "
                f"did you mean {close_to(key, valid) or ' or '.join(valid)}?"
            )


def resolve(flag: Callable[[str], Any], ini: Callable[[str], Any]) -> Options:
    """Take each option from its flag, else its ini key, else its default; BadOption names it."""
    chosen: dict[str, Any] = {}
    for option in OPTIONS:
        for spelling, source in ((option.flag, flag(option.key)), (option.key, ini(option.key))):
            if source is None or source == []:
                continue
            try:
                chosen[option.name] = option.parse(source)
            except BadOption as error:
                prefix = "" if str(error).startswith("nnscale_") else f"{spelling}: "
                raise BadOption(f"{prefix}{error}") from error
            break
    options = Options(**chosen)
    if options.energy_source == "estimate" and options.watts_per_core is None:
        # Found out later it would be a machine without a counter, and its tests be skipped.
        raise BadOption(
            "nnscale_energy_source=estimate needs the power of a busy core: "
            "state it, such as nnscale_watts_per_core=8"
        )
    return options


def resolve_sampling(given: Mapping[str, object]) -> Options:
    """Take options that say how something is sampled, by their ini keys; BadOption names it."""
    for key in given:
        if key not in SAMPLING:
            meant = close_to(key, SAMPLING) or ", ".join(SAMPLING)
            raise BadOption(f"{shown(key)} is no option of a profile; did you mean {meant}?")
    texts = {key: str(value) for key, value in given.items()}
    return resolve(lambda _key: None, texts.get)
