"""Options: one field, one flag, one ini key; and the rules of nnscale_budgets."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from pytest_nnscale.errors import BadOption
from pytest_nnscale.marks import MARK_OF
from pytest_nnscale.measurement import Metric
from pytest_nnscale.options import OPTIONS, Option, Options, declare, resolve
from pytest_nnscale.power.wanted import Wanted
from pytest_nnscale.rules import parse_rule

_FOLDER = tempfile.TemporaryDirectory()
TREES = [Path(_FOLDER.name) / name for name in ("one", "other")]
for tree in TREES:
    (tree / "intel-rapl:0").mkdir(parents=True)
    (tree / "intel-rapl:0" / "name").write_text("package-0")

# For every option two valid values, an invalid one, and the sentence about the latter.
VALUES: dict[str, tuple[str, str, str, str]] = {
    "budgets": ("a/*: max_params=1M", "b/*: max_flops=1G", "a/*: max_params", "is not GLOB"),
    "require": ("energy", "cuda", "coffee", "'coffee' is not one of energy, cuda"),
    "inconclusive": ("fail", "warn", "maybe", "'maybe' is not one of warn, fail"),
    "free_operators": ("my::op", "my::op.out,your::op", "my.op", "'my.op' is no operator's name"),
    "max_time": ("2.5", "9", "-1", "'-1' is not seconds above zero"),
    "max_wait": ("30", "2.5", "0", "'0' is not seconds above zero"),
    "confidence": ("0.9", "0.95", "99", "'99' is not between 0.5 and 1"),
    "energy": ("above_idle", "total", "net", "'net' is not one of total, above_idle"),
    "energy_scope": ("machine", "device", "rack", "'rack' is not one of device, machine"),
    "energy_source": ("rapl", "nvml", "tdp", "'tdp' is not one of auto, nvml, rapl, zeus"),
    "watts_per_core": ("8", "2.5", "0", "'0' is not watts above zero"),
    "grid_gco2_per_kwh": ("0", "420", "-1", "'-1' is not grams of CO2 a kWh"),
    "powercap_root": (*map(str, TREES), "/nowhere", "'/nowhere' is no powercap tree"),  # type: ignore[dict-item]
    "flush_l2": ("yes", "no", "true", "'true' is not one of yes, no"),
}
every_option = pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)


def given(option: Option, text: str) -> Any:
    """Return a text as pytest hands it over: in a list where the option repeats."""
    return [text] if option.repeats else text


def resolved(flags: dict[str, Any] | None = None, ini: dict[str, Any] | None = None) -> Options:
    return resolve((flags or {}).get, (ini or {}).get)


def test_every_option_is_tried_here() -> None:
    """A new option needs a field of Options and a row in the table above."""
    assert {option.name for option in OPTIONS} == set(Options._fields) == set(VALUES)


def test_what_is_wanted_of_energy_is_what_was_asked() -> None:
    """Each of six options arrives where joules are counted."""
    texts = {
        "energy": "above_idle",
        "energy_scope": "machine",
        "energy_source": "rapl",
        "watts_per_core": "8",
        "grid_gco2_per_kwh": "400",
        "powercap_root": str(TREES[0]),
    }
    found = resolved({f"nnscale_{name}": text for name, text in texts.items()}).wanted
    assert found == Wanted("rapl", "machine", True, TREES[0], 8.0, 400.0)
    assert resolved().wanted == Wanted()


def test_a_tree_of_links_to_nowhere_names_what_to_mount(tmp_path: Path) -> None:
    """`ls` shows the zones, so that it is no powercap tree would be taken for a lie."""
    (tmp_path / "intel-rapl:0").symlink_to("../../devices/virtual/powercap/intel-rapl/none")
    with pytest.raises(BadOption, match=r"links to nowhere, intel-rapl:0: mount .*devices/virtual"):
        resolved({"nnscale_powercap_root": str(tmp_path)})


@every_option
def test_every_option_is_a_flag_and_an_ini_key_with_help(option: Option) -> None:
    """Declared from the table, so that none can be forgotten."""
    flags: dict[str, Any] = {}
    keys: dict[str, tuple[Any, ...]] = {}
    declare(
        lambda name, **more: flags.update({name: more}),
        lambda name, *more, **_: keys.update({name: more}),
    )
    assert flags[option.flag]["dest"] == f"nnscale_{option.name}"
    assert flags[option.flag]["help"]
    assert keys[f"nnscale_{option.name}"] == (flags[option.flag]["help"],)


@every_option
def test_the_flag_wins_over_the_ini_key_and_that_over_the_default(option: Option) -> None:
    """Resolved once, in this order."""
    first, second, *_ = VALUES[option.name]
    key = f"nnscale_{option.name}"
    flag, ini = {key: given(option, first)}, {key: given(option, second)}
    parse = option.parse
    assert getattr(resolved(flag, ini), option.name) == parse(given(option, first))
    assert getattr(resolved({}, ini), option.name) == parse(given(option, second))
    assert getattr(resolved(), option.name) == Options._field_defaults[option.name]
    assert parse(given(option, first)) != parse(given(option, second))


@every_option
@pytest.mark.parametrize("source", ["flag", "ini"])
def test_a_bad_value_is_named_with_where_it_was_written(option: Option, source: str) -> None:
    """The sentence names the flag or the ini key, the value and what is valid."""
    *_, bad, sentence = VALUES[option.name]
    key = f"nnscale_{option.name}"
    told = {key: given(option, bad)}
    with pytest.raises(BadOption) as refused:
        resolved(told, {}) if source == "flag" else resolved({}, told)
    assert sentence in str(refused.value)
    spelling = option.flag if source == "flag" else key
    assert str(refused.value).startswith((spelling, "nnscale_budgets"))


@every_option
def test_pytest_hands_both_spellings_over(option: Option, suite: Any) -> None:
    """Through pytest's own parsers: from the ini file, and the flag over it."""
    first, second, *_ = VALUES[option.name]
    conftest = f"""
        from pytest_nnscale import keys

        def pytest_report_header(config):
            return f"resolved: {{config.stash[keys.OPTIONS].{option.name}!r}}"
        """
    ini = f"nnscale_{option.name} = {first}"
    parse = option.parse
    result = suite("", "--collect-only", "test_it.py", ini=ini, conftest=conftest)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert f"resolved: {parse(given(option, first))!r}" in result.outlines
    result = suite(None, "--collect-only", "test_it.py", f"{option.flag}={second}")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert f"resolved: {parse(given(option, second))!r}" in result.outlines


@pytest.mark.parametrize("value", ["0", "nan", "inf", "-1", "", "soon"])
def test_a_time_is_a_finite_number_of_seconds(value: str) -> None:
    """Nothing that would sample for ever or not at all."""
    with pytest.raises(BadOption, match="is not seconds above zero"):
        resolved({"nnscale_max_time": value})


@pytest.mark.parametrize("value", ["0.5", "1", "1.0", "nan", "99%"])
def test_a_confidence_lies_between_a_half_and_one(value: str) -> None:
    """Both ends mean nothing as a confidence."""
    with pytest.raises(BadOption, match="is not between"):
        resolved({"nnscale_confidence": value})


def test_required_names_come_one_by_one_or_listed() -> None:
    """Repeated, or with commas or spaces between."""
    wanted = frozenset({"energy", "cuda"})
    assert resolved({"nnscale_require": ["energy", "cuda"]}).require == wanted
    assert resolved({"nnscale_require": ["energy,cuda"]}).require == wanted
    assert resolved({"nnscale_require": ["energy cuda"]}).require == wanted


@pytest.mark.parametrize(
    ("line", "glob", "limits"),
    [
        ("tests/*: max_params=100M", "tests/*", {Metric.PARAMS: 100_000_000}),
        (
            "tests/models/*: max_params=100M, max_flops=20 GFLOP",
            "tests/models/*",
            {Metric.PARAMS: 100_000_000, Metric.FLOPS: 20_000_000_000},
        ),
        (
            "a.py::test_b[1: 2]: max_params = 1,000 , max_kernels=1,234",
            "a.py::test_b[1: 2]",
            {Metric.PARAMS: 1000, Metric.KERNELS: 1234},
        ),
        ("a.py::TestB::*: max_latency_ms=80", "a.py::TestB::*", {Metric.LATENCY: 0.08}),
        ("  *  :  max_params=1,  ", "*", {Metric.PARAMS: 1}),
        ("test_a*:max_flops=1", "test_a*", {Metric.FLOPS: 1}),
        (
            "a.py::max_b :max_params=1, max_kernels=2",
            "a.py::max_b",
            {Metric.PARAMS: 1, Metric.KERNELS: 2},
        ),
        (
            "a.py::test_b[x:max_flops=1]: max_params=1",
            "a.py::test_b[x:max_flops=1]",
            {Metric.PARAMS: 1},
        ),
    ],
)
def test_a_rule_is_a_glob_and_budgets(line: str, glob: str, limits: dict[Metric, float]) -> None:
    """Commas between budgets, and inside numbers; colons inside node ids, with or without a space."""
    rule = parse_rule(line)
    assert rule.glob == glob
    assert {budget.metric: budget.limit for budget in rule.budgets} == limits
    assert not any(budget.own for budget in rule.budgets)
    assert all(glob in budget.origin for budget in rule.budgets)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("tests/*", "is not GLOB: max_...=LIMIT"),
        ("tests/*:", "is not GLOB"),
        ("tests/*: 100M", "is not GLOB"),
        (": max_params=1", "is not GLOB"),
        ("tests/*:100M", "is not GLOB"),
        ("a.py::max_params=1", "is not GLOB"),
        (":max_params=1", "is not GLOB"),
        ("tests/*:max_parms=1", "unknown mark 'max_parms' in 'tests/*:max_parms=1'"),
        (
            "tests/*: max_parms=1",
            f"unknown mark 'max_parms' in 'tests/*: max_parms=1'; valid are {', '.join(MARK_OF)}",
        ),
        ("tests/*: max_params=", "max_params in 'tests/*: max_params=': '' is no amount"),
        ("tests/*: max_params=-1", "'-1' is not above zero"),
        ("tests/*: max_params=1 GFLOP", "unknown unit 'GFLOP'"),
        ("tests/*: max_params=1 max_flops=2", "is no amount"),
        ("tests/*: max_params=1; max_flops=2", "is no amount"),
        ("tests/*: max_params=1, max_params=2", "max_params twice"),
    ],
)
def test_a_bad_rule_is_named_with_its_fix(line: str, sentence: str) -> None:
    """The sentence shows the rule and what is wrong with it."""
    with pytest.raises(BadOption) as refused:
        parse_rule(line)
    assert str(refused.value).startswith("nnscale_budgets: ")
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("glob", "nodeid", "matches"),
    [
        ("tests/*", "tests/models/test_a.py::test_b", True),
        ("tests/models/*", "tests/test_a.py::test_b", False),
        ("*::test_b", "tests/test_a.py::test_b", True),
        ("*::test_b", "tests/test_a.py::test_b[small]", False),
        ("a.py::test_b[small]", "a.py::test_b[small]", True),
        ("*::TEST_B", "tests/test_a.py::test_b", False),
        ("*::test_b[[]small[]]", "tests/test_a.py::test_b[small]", True),
    ],
)
def test_a_rule_matches_the_whole_node_id(glob: str, nodeid: str, matches: bool) -> None:
    """As fnmatch does, case kept, `*` across folders."""
    assert parse_rule(f"{glob}: max_params=1").matches(nodeid) is matches
