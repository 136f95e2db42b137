"""Tables: of a session's budgets, and of a profile's modules."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_nnscale.budget import Budget, Verdict, judge
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.profiles import ModuleRow, Profile
from pytest_nnscale.report.table import budget_table, profile_table


def verdict(limit: float, found: Measurement, **budget: Any) -> Verdict:
    held = Budget(found.metric, limit, **budget)
    return Verdict(held, found, judge(held, found))


def params(value: int, limit: int) -> Verdict:
    return verdict(limit, Measurement.exact(Metric.PARAMS, value))


LATENCY = Measurement(Metric.LATENCY, 0.010, 0.009, 0.011)


def test_what_fits_is_one_line_a_budget_the_fullest_first() -> None:
    """Numbers to the right, the test last."""
    rows = [
        ("test_a.py::test_small", params(10, 1000)),
        ("test_a.py::test_large", verdict(2e9, Measurement.exact(Metric.FLOPS, 1_980_000_000))),
    ]
    assert budget_table(rows, width=80, everything=False) == [
        "  used   measured / limit  budget      test",
        "99.0 %  1.98 / 2.00 GFLOP  max_flops   test_a.py::test_large",
        " 1.0 %         10 / 1.00k  max_params  test_a.py::test_small",
    ]


def test_an_id_that_does_not_fit_has_its_own_line() -> None:
    """Its test's budgets below it, however wide the terminal is not."""
    long = "tests/models/test_transformers.py::test_block[wide-patch16-224-in21k-distilled]"
    rows = [
        (long, params(1, 100)),
        ("test_a.py::test_small", params(50, 100)),
        (long, verdict(0.02, LATENCY, quantile=0.95)),
        (long, params(90, 100)),
    ]
    assert budget_table(rows, width=80, everything=False) == [
        "    used  measured / limit  budget",
        long,
        "  90.0 %          90 / 100  max_params",
        "  50.0 %    10.0 / 20.0 ms  max_latency_ms (p95)",
        "   1.0 %           1 / 100  max_params",
        "test_a.py::test_small",
        "  50.0 %          50 / 100  max_params",
    ]
    wide = budget_table(rows, width=160, everything=False)
    assert [line.split()[-1] for line in wide[1:]] == [long, "test_a.py::test_small", long, long]


def test_a_budget_that_has_to_be_reached_is_the_fuller_the_less_is_reached() -> None:
    """Half of what was asked for comes before ninety per cent of what was allowed."""
    half = verdict(0.4, Measurement(Metric.EFFICIENCY, 0.2, 0.2, 0.2))
    double = verdict(0.4, Measurement(Metric.EFFICIENCY, 0.8, 0.8, 0.8))
    rows = [("double", double), ("full", params(90, 100)), ("half", half)]
    lines = budget_table(rows, width=80, everything=False)
    assert [line.split()[-1] for line in lines[1:]] == ["half", "full", "double"]


@pytest.mark.parametrize("width", [1, 20, 40, 79, 80, 120, 300])
def test_an_id_is_whole_at_any_width(width: int) -> None:
    """It can be copied: nothing is folded into it, cut from it or escaped in it."""
    ids = [f"tests/a.py::test_{'x' * n}[bold-[/red]-{n}]" for n in (1, 30, 90)]
    lines = budget_table([(i, params(1, 2)) for i in ids], width=width, everything=False)
    for nodeid in ids:
        assert sum(line.endswith(nodeid) for line in lines) == 1


def test_the_table_fills_the_width_to_the_last_column() -> None:
    """An id that just fits stays on its budget's line; a letter more does not."""
    rows = [("a" * 50, params(1, 2))]
    (_, line) = budget_table(rows, width=1000, everything=False)
    assert budget_table(rows, width=len(line), everything=False)[1] == line
    assert budget_table(rows, width=len(line) - 1, everything=False)[1] == "a" * 50


def test_twenty_budgets_are_shown_and_the_others_are_counted() -> None:
    """Unless everything is asked for."""
    rows = [(f"test_{n}", params(n, 100)) for n in range(1, 26)]
    lines = budget_table(rows, width=80, everything=False)
    assert len(lines) == 22
    assert lines[1].endswith("test_25")
    assert lines[-1] == "... and 5 more: pytest -v shows all"
    assert len(budget_table(rows, width=80, everything=True)) == 26
    narrow = budget_table(rows, width=20, everything=False)
    assert len(narrow) == 42
    assert narrow[-1] == lines[-1]


@pytest.mark.parametrize(
    ("found", "limit", "used", "numbers"),
    [
        (Measurement.exact(Metric.FLOPS, 1080), 1, "108,000 %", "1.08 kFLOP / 1 FLOP"),
        (Measurement.exact(Metric.FLOPS, 640), 10**9, "6.4e-05 %", "640 FLOP / 1.00 GFLOP"),
        (Measurement.exact(Metric.PARAMS, 999_999), 10**6, "100.0 %", "0.999999M / 1.00000M"),
        (Measurement.at_least(Metric.FLOPS, 80, reason="x"), 40, ">= 200.0 %", ">= 80 / 40 FLOP"),
        (Measurement.at_least(Metric.FLOPS, 80, reason="x"), 160, "unmeasured", ">= 80 / 160 FLOP"),
        (Measurement.nothing(Metric.ENERGY, reason="x"), 1.0, "unmeasured", "- / 1.00 J"),
        (LATENCY, 0.01, "inconclusive", "10.0 / 10.0 ms"),
        (Measurement(Metric.EFFICIENCY, 0.5, 0.5, 0.5), 0.4, "80.0 %", "50.0 / 40.0 %"),
        (Measurement(Metric.EFFICIENCY, 0.2, 0.2, 0.2), 0.4, "200.0 %", "20.0 / 40.0 %"),
    ],
)
def test_the_cells_of_a_budget(found: Measurement, limit: float, used: str, numbers: str) -> None:
    """The outcome stands where there is no share, a unit is said once, each number in its own."""
    (_, line) = budget_table([("t", verdict(limit, found))], width=80, everything=False)
    assert line.startswith(f"{used.rjust(4)}  {numbers.rjust(16)}  m")


def row(path: str, kind: str, *, complete: bool = True, **totals: int | None) -> ModuleRow:
    have = {"params": None, "flops": None, "memory": None, **totals}
    pairs = (n for name in ("params", "flops", "memory") for n in (have[name], have[name]))
    return ModuleRow(path, kind, *pairs, complete=complete)


def profile_of(measurements: list[Measurement], rows: list[ModuleRow], **more: Any) -> Profile:
    told = {"phase": "inference", "method": "executed", "uncounted": (), **more}
    return Profile("Net", measurements=tuple(measurements), modules=tuple(rows), **told)


PARAMS, FLOPS = Measurement.exact(Metric.PARAMS, 12), Measurement.exact(Metric.FLOPS, 4000)


def table_of(profile: Profile, **how: Any) -> list[list[str]]:
    """Return the words of the lines below the measurements."""
    lines = profile_table(profile, **how).splitlines()
    return [line.split() for line in lines[1 + len(profile.measurements) :] if "─" not in line]


def test_the_modules_of_a_profile() -> None:
    """Each with its numbers and its share of the FLOPs; unknown is empty, never zero."""
    rows = [
        row("", "Net", params=12, flops=4000, memory=64),
        row("head", "Linear", params=0, flops=1000, memory=None),
        row("tail", "Linear", params=None, flops=None, memory=48),
    ]
    memory = Measurement.exact(Metric.MEMORY, 64)
    assert table_of(profile_of([PARAMS, FLOPS, memory], rows)) == [
        ["module", "type", "params", "flops", "memory"],
        ["(whole)", "Net", "12", "4.00", "kFLOP", "100.0", "%", "64", "B"],
        ["head", "Linear", "0", "1.00", "kFLOP", "25.0", "%"],
        ["tail", "Linear", "48", "B"],
    ]


def test_flops_of_a_module_with_an_unknown_operator_are_a_lower_bound() -> None:
    """Also zero: what is not known is not nothing."""
    rows = [
        row("", "Net", flops=4000, complete=False),
        row("head", "Linear", flops=4000),
        row("rnn", "LSTM", flops=0, complete=False),
        row("idle", "Linear", complete=False),
    ]
    assert table_of(profile_of([FLOPS], rows))[1:] == [
        ["(whole)", "Net", ">=", "4.00", "kFLOP", "100.0", "%"],
        ["head", "Linear", "4.00", "kFLOP", "100.0", "%"],
        ["rnn", "LSTM", ">=", "0", "FLOP", "0.0", "%"],
        ["idle", "Linear"],
    ]


def test_what_was_not_measured_has_no_column() -> None:
    """Neither what is unknown of every module, nor what nobody asked for."""
    rows = [row("", "Net", params=12, flops=4000, memory=64), row("head", "Linear", flops=10)]
    assert table_of(profile_of([PARAMS], rows))[0] == ["module", "type", "params"]
    assert table_of(profile_of([FLOPS], rows))[0] == ["module", "type", "flops"]
    bare = [row("", "Net", params=12)]
    assert table_of(profile_of([PARAMS, FLOPS], bare))[0] == ["module", "type", "params"]


@pytest.mark.parametrize("rows", [[], [row("", "Net")], [row("", "Net", flops=10)]])
def test_a_table_without_numbers_is_left_out(rows: list[ModuleRow]) -> None:
    """A time belongs to no module."""
    assert profile_table(profile_of([LATENCY], rows)).splitlines() == [
        "Net (inference, executed); 1 MAC = 2 FLOP",
        "  latency  10.00 ms (between 9.00 ms and 11.0 ms)",
    ]


def test_the_depth_of_the_table() -> None:
    """A level is a dot in the path; None is all of them."""
    rows = [row(path, "Net", params=1) for path in ("", "a", "a.b", "a.b.c")]
    profile = profile_of([PARAMS], rows)
    shown = {depth: len(table_of(profile, depth=depth)) - 1 for depth in (0, 1, 2, 3)}
    assert shown == {0: 1, 1: 2, 2: 3, 3: 4}
    assert len(table_of(profile, depth=None)) - 1 == 4


def test_an_unmeasured_number_says_why_and_what_to_do() -> None:
    """Without the option of pytest that a profile does not have."""
    missing = Measurement.nothing(
        Metric.ENERGY,
        reason="no counter",
        remedy="buy one",
        missing="energy",
    )
    lines = profile_table(profile_of([missing], [])).splitlines()
    assert lines[1] == "  energy   unmeasured: no counter; buy one"
    plain = Measurement.nothing(Metric.ENERGY, reason="no counter")
    assert profile_table(profile_of([plain], [])).endswith("unmeasured: no counter")


def test_a_lower_bound_says_what_is_unknown() -> None:
    """In the line of its measurement."""
    bound = Measurement.at_least(Metric.FLOPS, 80, reason="no formula for aten::lstm")
    lines = profile_table(profile_of([bound], [])).splitlines()
    assert lines[1] == "  flops    at least 80 FLOP: no formula for aten::lstm"
