"""Amounts with units: text to number, number to text, pairs that never print alike."""

import math
import re
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from typing import NamedTuple

from pytest_nnscale.errors import BadQuantity, shown

_NUMBER_AND_UNIT = re.compile(
    r"\s*(?P<number>[+-]?(?:\d[\d_,]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>[A-Za-zµ]*|%)\s*"
)
_GROUPED = re.compile(r"\d{1,3}(,\d{3})+|\d+(_\d+)*")


class Dimension(NamedTuple):
    """What an amount is an amount of.

    `units` maps every accepted spelling to its size in base units, `ladder` lists the spellings
    used for printing from large to small, `bare` is the unit of a number without one. A limit is at
    most `most`, in base units.
    """

    name: str
    bare: str
    units: dict[str, Fraction]
    ladder: tuple[str, ...]
    whole: bool
    most: int | None = None


def _prefixed(stem: str, prefixes: str) -> dict[str, Fraction]:
    exponents = {"": 0, "k": 3, "K": 3, "M": 6, "G": 9, "B": 9, "T": 12, "P": 15, "E": 18}
    return {p + stem: Fraction(10) ** exponents[p] for p in ("", *prefixes)}


_COUNT_SCALES = _prefixed("", "kKMGBT")
COUNT = Dimension("count", "", _COUNT_SCALES, ("T", "B", "M", "k", ""), whole=True)
_FLOP_SCALES = {
    **_prefixed("FLOP", "kKMGTPE"),
    **_prefixed("FLOPs", "kKMGTPE"),
}
# One multiply-accumulate is two FLOP, here and everywhere: a budget on FLOP may be stated in MAC.
_MAC_SCALES = {**_prefixed("MAC", "kKMGTPE"), **_prefixed("MACs", "kKMGTPE")}
FLOP = Dimension(
    "FLOP",
    "FLOP",
    {**_FLOP_SCALES, **{unit: 2 * size for unit, size in _MAC_SCALES.items()}},
    ("EFLOP", "PFLOP", "TFLOP", "GFLOP", "MFLOP", "kFLOP", "FLOP"),
    whole=True,
)
MAC = Dimension(
    "MAC",
    "MAC",
    {**_MAC_SCALES, **{unit: size / 2 for unit, size in _FLOP_SCALES.items()}},
    ("EMAC", "PMAC", "TMAC", "GMAC", "MMAC", "kMAC", "MAC"),
    whole=True,
)
BYTES = Dimension(
    "bytes",
    "MB",
    {
        "B": Fraction(1),
        "bytes": Fraction(1),
        **{p + "B": Fraction(1000) ** i for i, p in enumerate("kMGT", 1)},
        "KB": Fraction(1000),
        **{p + "iB": Fraction(1024) ** i for i, p in enumerate("KMGT", 1)},
    },
    ("TB", "GB", "MB", "kB", "B"),
    whole=True,
)
SECONDS = Dimension(
    "seconds",
    "ms",
    {
        "s": Fraction(1),
        "min": Fraction(60),
        "ms": Fraction(1, 10**3),
        "us": Fraction(1, 10**6),
        "µs": Fraction(1, 10**6),
        "ns": Fraction(1, 10**9),
    },
    ("s", "ms", "us", "ns"),
    whole=False,
)
JOULES = Dimension(
    "joules",
    "J",
    {
        "J": Fraction(1),
        "kJ": Fraction(1000),
        "mJ": Fraction(1, 10**3),
        "uJ": Fraction(1, 10**6),
        "µJ": Fraction(1, 10**6),
        "Wh": Fraction(3600),
        "kWh": Fraction(3_600_000),
    },
    ("kJ", "J", "mJ", "uJ"),
    whole=False,
)
FRACTION = Dimension(
    "fraction",
    "",
    {"%": Fraction(1, 100), "": Fraction(1)},
    ("%",),
    whole=False,
    most=1,
)
RATIO = Dimension(
    "ratio",
    "x",
    {"x": Fraction(1)},
    ("x",),
    whole=False,
)


def parse_quantity(amount: object, dimension: Dimension) -> int | float:
    """Read an amount, "8.2 GFLOP" or a bare number, in base units of its dimension.

    Whole dimensions (count, FLOP, MAC, bytes) give an int, rounded down, so that a limit never
    grows by rounding; the others a float. Raises BadQuantity for what is not a positive finite
    amount of the dimension.
    """
    if isinstance(amount, bool) or not isinstance(amount, int | float | str):
        raise BadQuantity(
            f"{shown(amount)} is {_with_article(type(amount).__name__)}; give a number or a text such as "
            f"{_example(dimension)!r}"
        )
    if isinstance(amount, str):
        number, unit = _split(amount, dimension)
    elif isinstance(amount, int):
        number, unit = Fraction(int(amount)), dimension.bare
    elif math.isfinite(amount):
        # Through its digits: 0.1 means one tenth, not the nearest binary fraction.
        number, unit = Fraction(Decimal(repr(float(amount)))), dimension.bare
    else:
        raise BadQuantity(f"{shown(amount)} is not a finite amount; give a positive number")
    if number <= 0:
        raise BadQuantity(f"{shown(amount)} is not above zero; a budget is a positive amount")
    in_base = number * dimension.units[unit]
    if not Fraction(1, 10**30) < in_base < 10**30:
        raise BadQuantity(
            f"{shown(amount)} is beyond 10^30 in either direction; give a sensible amount"
        )
    if dimension.most is not None and in_base > dimension.most:
        raise BadQuantity(
            f"{shown(amount)} is above {dimension.most}; a {dimension.name} is written like 0.4 or "
            f"{_example(dimension)!r}"
        )
    if not dimension.whole:
        return float(in_base)
    whole = math.floor(in_base)
    if whole == 0:
        raise BadQuantity(
            f"{shown(amount)} is less than one {dimension.name.removesuffix('s')}; "
            "a budget is at least one"
        )
    return whole


def _split(text: str, dimension: Dimension) -> tuple[Fraction, str]:
    match = _NUMBER_AND_UNIT.fullmatch(text)
    if match is None:
        raise BadQuantity(f"{shown(text)} is no amount; write it like {_example(dimension)!r}")
    digits = match["number"].lstrip("+-")
    # "25,6M" is a European 25.6M to some and 256M to others: refuse what is not grouped.
    grouped = "," in digits or "_" in digits
    if grouped and not _GROUPED.fullmatch(re.split(r"[.eE]", digits)[0]):
        raise BadQuantity(f"{shown(text)}: the digits are grouped oddly; write 1,000 or 1.5")
    exponent = re.search(r"[eE]([+-]?\d+)$", digits)
    if exponent is not None and (len(exponent[1]) > 9 or abs(int(exponent[1])) > 40):
        raise BadQuantity(f"{shown(text)} has an exponent beyond 40; give a sensible amount")
    try:
        number = Fraction(Decimal(re.sub("[,_]", "", match["number"])))
    except InvalidOperation:
        raise BadQuantity(
            f"{shown(text)} is no amount; write it like {_example(dimension)!r}"
        ) from None
    unit = match["unit"] or dimension.bare
    if unit in dimension.units:
        return number, unit
    stemmed = unit + dimension.bare
    if dimension.name in ("FLOP", "MAC") and stemmed in dimension.units:
        return number, stemmed  # "8.2G" on a FLOP budget
    take = "takes" if dimension.name in ("count", "fraction", "ratio") else "take"
    raise BadQuantity(
        f"{shown(text)}: unknown unit {shown(unit)}; "
        f"{dimension.name} {take} {', '.join(_known(dimension))}"
    )


def _with_article(noun: str) -> str:
    return f"{'an' if noun[:1] in tuple('aeiouAEIOU') else 'a'} {noun}"


def _known(dimension: Dimension) -> list[str]:
    return [unit for unit in dimension.units if unit and not unit.endswith(("FLOPs", "MACs"))]


def _example(dimension: Dimension) -> str:
    return {
        "count": "25.6M",
        "FLOP": "8.2 GFLOP",
        "MAC": "4.1 GMAC",
        "bytes": "100 MiB",
        "seconds": "80 ms",
        "joules": "1.5 J",
        "fraction": "40 %",
        "ratio": "1.1 x",
    }[dimension.name]


def format_quantity(amount: int | float, dimension: Dimension, *, digits: int = 3) -> str:
    """Print an amount in base units with the unit that suits it and `digits` significant digits."""
    return _render(amount, dimension, _unit_for(amount, dimension, digits), digits)


def format_pair(first: int | float, second: int | float, dimension: Dimension) -> tuple[str, str]:
    """Print two amounts with as many digits as it takes to tell them apart.

    Both in one unit, unless the smaller would be next to nothing in it: then each in its own.
    """
    large, small = max(abs(first), abs(second)), min(abs(first), abs(second))
    unit = _unit_for(large, dimension, 3)
    has_own = _unit_for(small, dimension, 3) != unit
    if large > 1000 * small or (has_own and small < dimension.units[unit] / 10):
        return format_quantity(first, dimension), format_quantity(second, dimension)
    for digits in range(3, 18):
        unit = _unit_for(large, dimension, digits)
        left = _render(first, dimension, unit, digits)
        right = _render(second, dimension, unit, digits)
        if left != right:
            return left, right
    if first == second:
        text = format_quantity(first, dimension)
        return text, text
    base = _base(dimension)
    return f"{first!r} {base}".rstrip(), f"{second!r} {base}".rstrip()


def _unit_for(amount: int | float, dimension: Dimension, digits: int) -> str:
    """Choose the largest unit that an amount fills, as it reads once it is rounded."""
    if not amount:
        return _base(dimension) or dimension.ladder[-1]
    rounded = Fraction(_rounded(Fraction(abs(amount)), digits))
    for unit in dimension.ladder:
        if rounded >= dimension.units[unit]:
            return unit
    return dimension.ladder[-1]


def _base(dimension: Dimension) -> str:
    return next(unit for unit, size in dimension.units.items() if size == 1)


def _rounded(amount: Fraction, digits: int) -> Decimal:
    context = Context(prec=digits)
    return context.divide(Decimal(amount.numerator), Decimal(amount.denominator))


def _render(amount: int | float, dimension: Dimension, unit: str, digits: int) -> str:
    size = dimension.units[unit]
    if not amount:
        number = "0"
    elif size == 1 and isinstance(amount, int):
        number = f"{amount:,}"
    else:
        scaled = Fraction(amount) / size
        # Of what is printed, not of the amount: 9.999 is 10.0, not 10.00.
        decimals = max(0, digits - 1 - _rounded(scaled, digits).adjusted())
        exact = Decimal(scaled.numerator) / Decimal(scaled.denominator)
        number = f"{exact:,.{decimals}f}"
    joint = "" if dimension.name == "count" else " "
    return f"{number}{joint}{unit}".rstrip()


def format_percent(part: int | float, whole: int | float) -> str:
    """Print `part` as a percentage of `whole`, signs kept, one decimal below ten per cent."""
    if whole == 0:
        return "n/a"
    percent = 100 * part / whole
    if percent != 0 and abs(percent) < 0.1:
        return f"{percent:.2g} %"
    return f"{percent:.1f} %" if abs(percent) < 1000 else f"{percent:,.0f} %"


def time_to_give(seconds: float) -> float:
    """Round a time up to two digits, so that whoever gives it gives enough."""
    step = 10.0 ** (math.floor(math.log10(seconds)) - 1)
    return round(math.ceil(seconds / step * (1 - 1e-9)) * step, 12)
