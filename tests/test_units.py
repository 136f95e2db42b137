"""Amounts: what is read, what is refused, what is printed."""

from __future__ import annotations

import enum
import math
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_nnscale.errors import BadQuantity
from pytest_nnscale.units import (
    BYTES,
    COUNT,
    FLOP,
    FRACTION,
    JOULES,
    MAC,
    SECONDS,
    Dimension,
    format_pair,
    format_percent,
    format_quantity,
    parse_quantity,
)

DIMENSIONS = (COUNT, FLOP, MAC, BYTES, SECONDS, JOULES, FRACTION)
dimensions = st.sampled_from(DIMENSIONS)


@pytest.mark.parametrize(
    ("dimension", "amount", "expected"),
    [
        (COUNT, 1, 1),
        (COUNT, "25.6M", 25_600_000),
        (COUNT, "1.5k", 1500),
        (COUNT, "1.5K", 1500),
        (COUNT, "7B", 7_000_000_000),
        (COUNT, "1,000", 1000),
        (COUNT, "1_000", 1000),
        (COUNT, "1,234,567.5", 1_234_567),
        (COUNT, 2.9, 2),
        (COUNT, " 3 k ", 3000),
        (COUNT, "1e3", 1000),
        (COUNT, ".5M", 500_000),
        (FLOP, 8, 8),
        (FLOP, "8.2 GFLOP", 8_200_000_000),
        (FLOP, "8.2GFLOPs", 8_200_000_000),
        (FLOP, "8.2G", 8_200_000_000),
        (MAC, "4.1 GMAC", 4_100_000_000),
        (MAC, "4.1 GMACs", 4_100_000_000),
        (MAC, "4.1G", 4_100_000_000),
        (BYTES, 1, 1_000_000),
        (BYTES, 102.5, 102_500_000),
        (BYTES, "1 B", 1),
        (BYTES, "1 kB", 1000),
        (BYTES, "1 KiB", 1024),
        (BYTES, "1 MB", 1_000_000),
        (BYTES, "1 MiB", 1_048_576),
        (BYTES, "1 GiB", 1_073_741_824),
        (SECONDS, 80, 0.08),
        (SECONDS, 0.1, 0.0001),
        (SECONDS, "8 ms", 0.008),
        (SECONDS, "8 us", 8e-6),
        (SECONDS, "8 µs", 8e-6),
        (SECONDS, "1 min", 60.0),
        (JOULES, 3, 3.0),
        (JOULES, "1.5 J", 1.5),
        (JOULES, "20 mJ", 0.02),
        (JOULES, "1 Wh", 3600.0),
        (FRACTION, 0.4, 0.4),
        (FRACTION, "0.4", 0.4),
        (FRACTION, "40 %", 0.4),
        (FRACTION, "62.5%", 0.625),
        (FRACTION, 1, 1.0),
        (FRACTION, "100 %", 1.0),
    ],
)
def test_an_amount_is_read_in_base_units(
    dimension: Dimension, amount: object, expected: float
) -> None:
    """A bare number means the dimension's usual unit; a text carries its own."""
    parsed = parse_quantity(amount, dimension)
    assert parsed == expected
    assert type(parsed) is type(expected)


@pytest.mark.parametrize(
    ("dimension", "amount", "sentence"),
    [
        (COUNT, 0, "0 is not above zero"),
        (COUNT, -1, "-1 is not above zero"),
        (COUNT, "-25M", "'-25M' is not above zero"),
        (COUNT, 0.5, "0.5 is less than one count; a budget is at least one"),
        (BYTES, 1e-9, "1e-09 is less than one byte; a budget"),
        (COUNT, math.nan, "nan is not a finite amount"),
        (COUNT, math.inf, "inf is not a finite amount"),
        (COUNT, -math.inf, "-inf is not a finite amount"),
        (COUNT, "nan", "'nan' is no amount"),
        (COUNT, "inf", "'inf' is no amount"),
        (COUNT, "", "'' is no amount"),
        (COUNT, "M", "'M' is no amount"),
        (COUNT, "1.2.3", "'1.2.3' is no amount"),
        (COUNT, "25,6M", "the digits are grouped oddly"),
        (COUNT, "1__0", "the digits are grouped oddly"),
        (COUNT, "1e41", "has an exponent beyond 40"),
        pytest.param(COUNT, "1e" + "9" * 5000, "has an exponent beyond 40", id="long exponent"),
        (COUNT, 10**30, "is beyond 10^30"),
        pytest.param(COUNT, 10**5000, "the int is beyond 10^30", id="huge int"),
        (SECONDS, 1e-40, "is beyond 10^30"),
        (COUNT, "25 MFLOP", "unknown unit 'MFLOP'; count takes k, K, M, G, B, T"),
        (FLOP, "8 GB", "unknown unit 'GB'; FLOP take"),
        (FLOP, "8 ms", "unknown unit 'ms'"),
        (BYTES, "8 Mb", "unknown unit 'Mb'"),
        (SECONDS, "8 J", "unknown unit 'J'; seconds take s, min, ms"),
        (JOULES, "8 W", "unknown unit 'W'"),
        (FRACTION, 40, "40 is above 1; a fraction is written like 0.4 or '40 %'"),
        (FRACTION, "101 %", "'101 %' is above 1; a fraction"),
        (FRACTION, math.nextafter(1, 2), "1.0000000000000002 is above 1"),
        (FRACTION, "0 %", "'0 %' is not above zero"),
        (FRACTION, "8 ms", "unknown unit 'ms'; fraction takes %"),
        (COUNT, "8 %", "unknown unit '%'"),
        (COUNT, True, "True is a bool"),
        (COUNT, None, "None is a NoneType; give a number or a text such as '25.6M'"),
        (COUNT, b"25M", "is a bytes"),
        (COUNT, [25], "[25] is a list"),
        (COUNT, range(0), "range(0, 0) is a range"),
        (COUNT, Ellipsis, "Ellipsis is an ellipsis"),
        (COUNT, 1 + 2j, "is a complex"),
        pytest.param(COUNT, "9" * 5000 + "x", "unknown unit 'x'", id="long text"),
        pytest.param(COUNT, "x" * 5000, "'xxx", id="long word"),
        pytest.param(COUNT, "9" + "x" * 5000, "unknown unit 'xxx", id="long unit"),
    ],
)
def test_what_is_no_amount_is_refused(dimension: Dimension, amount: object, sentence: str) -> None:
    """The sentence names what was written and stays short, whatever was written."""
    with pytest.raises(BadQuantity) as refused:
        parse_quantity(amount, dimension)
    assert sentence in str(refused.value)
    assert len(str(refused.value)) < 200


def test_an_enum_of_numbers_is_its_number() -> None:
    """The value counts, not what str() makes of the member."""

    class Limit(int, enum.Enum):
        SMALL = 5

    assert parse_quantity(Limit.SMALL, COUNT) == 5


def test_an_object_without_a_repr_is_refused_all_the_same() -> None:
    """A repr that raises does not replace our sentence."""

    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(BadQuantity, match="the Odd is an Odd"):
        parse_quantity(Odd(), COUNT)


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.decimals(),
    st.fractions(),
    st.binary(),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.functions(),
    st.text(),
    st.from_regex(r"\s*[+-]?[\d_,]{1,5}(\.\d{0,4})?([eE][+-]?\d{1,5})?\s*[A-Za-zµ]{0,4}\s*"),
)


@given(anything, dimensions)
def test_reading_gives_a_positive_amount_or_bad_quantity(
    amount: object, dimension: Dimension
) -> None:
    """No object and no text raises anything else, and none gives zero, less, or no number."""
    try:
        parsed = parse_quantity(amount, dimension)
    except BadQuantity:
        return
    assert 0 < parsed < math.inf
    assert isinstance(parsed, int if dimension.whole else float)


def amounts_of(dimension: Dimension) -> st.SearchStrategy[int | float]:
    if dimension.whole:
        return st.integers(1, 10**24)
    if dimension.most is not None:
        return st.floats(1e-12, dimension.most)
    return st.floats(1e-12, 1e12)


dimension_and_amount = dimensions.flatmap(lambda d: st.tuples(st.just(d), amounts_of(d)))


@given(dimension_and_amount, st.integers(3, 12))
def test_what_is_printed_can_be_read_back(
    drawn: tuple[Dimension, int | float], digits: int
) -> None:
    """Printing loses at most half of the last digit printed, and rounding down to whole one."""
    dimension, amount = drawn
    text = format_quantity(amount, dimension, digits=digits)
    back = parse_quantity(text, dimension)
    tolerance = Fraction(amount) * Fraction(51, 100) / 10 ** (digits - 1) + dimension.whole
    assert abs(Fraction(back) - Fraction(amount)) <= tolerance


@example((SECONDS, 1e-12, math.nextafter(1e-12, 1)))
@example((COUNT, 999_999, 1_000_000))
@given(
    dimensions.flatmap(
        lambda d: (
            st.tuples(st.just(d), *[amounts_of(d) | st.just(0)] * 2)
            | st.tuples(st.just(d), amounts_of(d), st.integers(1, 3)).map(
                lambda near: (near[0], near[1], _next(near[1], near[2]))
            )
        )
    )
)
def test_two_amounts_print_alike_only_if_they_are_equal(
    drawn: tuple[Dimension, int | float, int | float],
) -> None:
    """A reader who compares the two texts never wonders why the test is red."""
    dimension, first, second = drawn
    left, right = format_pair(first, second, dimension)
    assert (left == right) == (first == second)


def _next(amount: int | float, steps: int) -> int | float:
    if isinstance(amount, int):
        return amount + steps
    for _ in range(steps):
        amount = math.nextafter(amount, math.inf)
    return amount


def test_a_pair_of_huge_whole_joules_keeps_its_unit() -> None:
    """Where no number of digits tells two amounts apart, both are shown in the base unit."""
    assert format_pair(10**25, 10**25 + 1, JOULES) == (f"{10**25} J", f"{10**25 + 1} J")


@given(st.integers(1, 10**20))
def test_one_mac_is_two_flop(count: int) -> None:
    """Both ways: a budget on FLOP may be stated in MAC, and one on MAC in FLOP."""
    assert parse_quantity(f"{count} MAC", FLOP) == 2 * parse_quantity(f"{count} FLOP", FLOP)
    assert parse_quantity(f"{2 * count} FLOP", MAC) == parse_quantity(f"{count} MAC", MAC)


def test_half_a_mac_rounds_down_and_less_is_refused() -> None:
    """A limit never grows by rounding."""
    assert parse_quantity("3 FLOP", MAC) == 1
    with pytest.raises(BadQuantity, match="less than one MAC"):
        parse_quantity("1 FLOP", MAC)


@pytest.mark.parametrize(
    ("amount", "dimension", "text"),
    [
        (0, COUNT, "0"),
        (1, COUNT, "1"),
        (999, COUNT, "999"),
        (1000, COUNT, "1.00k"),
        (999_499, COUNT, "999k"),
        (999_500, COUNT, "1.00M"),
        (999_999, COUNT, "1.00M"),
        (1_000_000, COUNT, "1.00M"),
        (25_557_032, COUNT, "25.6M"),
        (9_999_000_000, COUNT, "10.0B"),
        (1, FLOP, "1 FLOP"),
        (999, FLOP, "999 FLOP"),
        (1000, FLOP, "1.00 kFLOP"),
        (8_178_000_000, FLOP, "8.18 GFLOP"),
        (4_089_000_000, MAC, "4.09 GMAC"),
        (999, BYTES, "999 B"),
        (1000, BYTES, "1.00 kB"),
        (1_048_576, BYTES, "1.05 MB"),
        (1.0, SECONDS, "1.00 s"),
        (0.999, SECONDS, "999 ms"),
        (0.001, SECONDS, "1.00 ms"),
        (0.000999, SECONDS, "999 us"),
        (1e-9, SECONDS, "1.00 ns"),
        (1e-10, SECONDS, "0.100 ns"),
        (1000 * 1e-9, SECONDS, "1.00 us"),
        (math.nextafter(1e-6, 0), SECONDS, "1.00 us"),
        (math.nextafter(1.0, 0), SECONDS, "1.00 s"),
        (0.0, SECONDS, "0 s"),
        (0, BYTES, "0 B"),
        (1000.0, JOULES, "1.00 kJ"),
        (0.5, JOULES, "500 mJ"),
        (0.4, FRACTION, "40.0 %"),
        (1.0, FRACTION, "100 %"),
        (0.00123, FRACTION, "0.123 %"),
        (0.0, FRACTION, "0 %"),
        (1.3, FRACTION, "130 %"),
    ],
)
def test_an_amount_prints_in_the_unit_that_suits_it(
    amount: float, dimension: Dimension, text: str
) -> None:
    """The unit changes exactly at its border, as the number reads once it is rounded."""
    assert format_quantity(amount, dimension) == text


def test_a_pair_shows_as_many_digits_as_it_takes() -> None:
    """One unit for both, and three digits where three are enough."""
    assert format_pair(3_640_000_000, 3_600_000_000, FLOP) == ("3.64 GFLOP", "3.60 GFLOP")
    assert format_pair(3_600_000_001, 3_600_000_000, FLOP) == (
        "3.600000001 GFLOP",
        "3.600000000 GFLOP",
    )
    assert format_pair(999, 1001, COUNT) == ("0.999k", "1.00k")
    assert format_pair(7, 7, COUNT) == ("7", "7")
    assert format_pair(999_998, 999_999, COUNT) == ("999.998k", "999.999k")
    assert format_pair(999_999, 1_000_000, COUNT) == ("0.999999M", "1.00000M")


@pytest.mark.parametrize(
    ("first", "second", "dimension", "texts"),
    [
        (1080, 1, FLOP, ("1.08 kFLOP", "1 FLOP")),
        (1, 1_000_000_000, FLOP, ("1 FLOP", "1.00 GFLOP")),
        (0.00815, 1e-6, SECONDS, ("8.15 ms", "1.00 us")),
        (1000, 99, COUNT, ("1.00k", "99")),
        (1000, 100, COUNT, ("1.00k", "0.100k")),
        (500_000, 100, COUNT, ("500k", "100")),
        (500_000, 500, COUNT, ("500k", "0.500k")),
        (500_001, 500, COUNT, ("500k", "500")),
        (0, 8_000, FLOP, ("0 FLOP", "8.00 kFLOP")),
        (0.0, 1.5, JOULES, ("0 J", "1.50 J")),
        (0, 0, COUNT, ("0", "0")),
    ],
)
def test_a_pair_far_apart_is_in_two_units(
    first: float, second: float, dimension: Dimension, texts: tuple[str, str]
) -> None:
    """Neither is next to nothing in the other's unit: less than a tenth, or a thousandth."""
    assert format_pair(first, second, dimension) == texts
    assert format_pair(second, first, dimension) == texts[::-1]


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (1, 0, "n/a"),
        (0, 5, "0.0 %"),
        (1, 100, "1.0 %"),
        (1, 1000, "0.1 %"),
        (1, 10_000, "0.01 %"),
        (1, 3_600_000_000, "2.8e-08 %"),
        (9_999, 1000, "999.9 %"),
        (10_000, 1000, "1,000 %"),
        (-1, 4, "-25.0 %"),
    ],
)
def test_a_percentage_never_prints_as_nothing(part: int, whole: int, text: str) -> None:
    """A share that is not zero does not print as 0.0 %."""
    assert format_percent(part, whole) == text
