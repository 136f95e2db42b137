"""Base against head in words: the table, the reasons below it, the closing line, and Markdown."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pytest_nnscale.ab.cause import Cause, Part
from pytest_nnscale.ab.comparison import Comparison, Report, Side, Timing
from pytest_nnscale.ab.ratio import Change, Ratio
from pytest_nnscale.measurement import Measurement, Metric, Share
from pytest_nnscale.report.ab import ab_lines, ab_markdown
from pytest_nnscale.report.reasons import cause_text

VERSIONS = {"python": "3.11.7", "torch": "2.14.1"}
BASE = Side("main (1234567890)", "1234567890ab", VERSIONS, 2)
HEAD = Side("the working tree", "1234567890ab", VERSIONS, 2)


def exact(flops: int, *, params: int = 2_500_000) -> tuple[Measurement, ...]:
    shares = (
        Share("", "Net", 0, flops),
        Share("layer1", "Linear", 4_000_000, 4_000_000),
        Share("layer3", "Linear", flops - 4_000_000, flops - 4_000_000),
    )
    return (
        Measurement.exact(Metric.FLOPS, flops, shares=shares),
        Measurement.exact(Metric.KERNELS, 12),
        Measurement.exact(Metric.MEMORY, 3_000_000),
        Measurement.exact(Metric.PARAMS, params),
    )


TIMING = Timing(Ratio(1.121, 1.098, 1.144), 0.00451, 0.00506, (0.11, 0.12))
SLOWER = Comparison(
    "t.py::test_slow[a|b]",
    Change.SLOWER,
    timing=TIMING,
    base=exact(8_000_000),
    head=exact(8_960_000),
)
SAME = Comparison(
    "t.py::test_same", Change.SAME, timing=Timing(Ratio(1.001, 0.99, 1.012), 0.00451, 0.004512, ()),
    base=exact(8_000_000), head=exact(8_000_000),
)  # fmt: skip
UNSURE = Comparison(
    "t.py::test_unsure", Change.INCONCLUSIVE, timing=replace(TIMING, ratio=Ratio(1.05, 0.9, 1.2)),
    remedy="give it longer: --max-time=90",
)  # fmt: skip
GONE = Comparison("t.py::test_gone", Change.ONLY_IN_BASE)
FAILS = Comparison(
    "t.py::test_fails", Change.UNMEASURED, reason="it fails in head", remedy="mend it"
)


def report(*comparisons: Comparison, **more: Any) -> Report:
    return replace(Report(BASE, HEAD, 0.05, 0.99, comparisons, 7, 41.2), **more)


def test_the_table_has_the_slowest_first_and_the_reason_below_it() -> None:
    """Times and exact metrics of both sides side by side; an id is never cut."""
    assert list(ab_lines(report(GONE, SAME, SLOWER, UNSURE))) == [
        "base: main (1234567890), head: the working tree",
        "both with python 3.11.7, torch 2.14.1, 2 threads",
        "time                     head / base      base      head       FLOPs  kernels   memory  parameters  test",
        "slower        1.121 (1.098 to 1.144)   4.51 ms   5.06 ms     +12.0 %       12  3.00 MB       2.50M  t.py::test_slow[a|b]",
        "  because FLOPs rose 12.0 % in layer3: 8.00 MFLOP to 8.96 MFLOP",
        "same          1.001 (0.990 to 1.012)  4.510 ms  4.512 ms  8.00 MFLOP       12  3.00 MB       2.50M  t.py::test_same",
        "inconclusive  1.050 (0.900 to 1.200)   4.51 ms   5.06 ms     unknown  unknown  unknown     unknown  t.py::test_unsure",
        "  give it longer: --max-time=90",
        "only in base                                                                                        t.py::test_gone",
        "4 comparisons: 1 slower, 1 same, 1 inconclusive, 1 only in base; threshold 5 %, 99 % intervals over 7 restarts, 41 s",
    ]


def test_within_a_verdict_the_slowest_is_first() -> None:
    """By its ratio; what has none comes last."""
    ratios = (1.2, 3.4, 1.5)
    rows = [
        replace(SLOWER, test=f"t.py::test_{ratio}", timing=replace(TIMING, ratio=Ratio(ratio, 1.1, 9)))
        for ratio in ratios
    ]  # fmt: skip
    lines = [line for line in ab_lines(report(GONE, *rows)) if "::" in line]
    assert [line.rpartition("_")[2] for line in lines] == ["3.4", "1.5", "1.2", "gone"]


def explained(change: Change = Change.SLOWER, **sides: tuple[Measurement, ...]) -> list[str]:
    """Return the lines below a test that took another time."""
    row = replace(SLOWER, **{"change": change, "base": exact(8_000_000), **sides})
    return [line.strip() for line in ab_lines(report(row))][4:-1]


OPERATORS = "the operators take another time, or the code between them does"


def test_slower_without_a_cause_says_that_the_work_is_the_same() -> None:
    """It is no change of the model."""
    assert explained(head=exact(8_000_000)) == [
        f"FLOPs, kernels and memory are as before: {OPERATORS}"
    ]


def test_every_cause_is_named_and_what_else_changed() -> None:
    """Parameters take no time by themselves."""
    assert explained(head=(*exact(8_960_000, params=5_000_000), Measurement.exact(Metric.SIZE, 1)),
                     base=(*exact(8_000_000), Measurement.exact(Metric.SIZE, 2))) == [
        "because FLOPs rose 12.0 % in layer3: 8.00 MFLOP to 8.96 MFLOP",
        "also parameters rose 100.0 %: 2.50M to 5.00M",
        "also size fell 50.0 %: 2 B to 1 B",
    ]  # fmt: skip
    kernels = Measurement.exact(Metric.KERNELS, 13)
    head = tuple(kernels if m.metric is Metric.KERNELS else m for m in exact(8_960_000))
    assert explained(head=head)[1] == "and kernels rose 8.3 %: 12 to 13"


@pytest.mark.parametrize(
    ("change", "flops", "moved"),
    [(Change.SLOWER, 7_000_000, "rose"), (Change.FASTER, 8_960_000, "fell")],
)
def test_what_moved_the_other_way_is_no_cause(change: Change, flops: int, moved: str) -> None:
    """Slower is not because of less work."""
    first, second = explained(change, head=exact(flops))
    assert first == f"neither FLOPs nor kernels nor memory {moved}: {OPERATORS}"
    assert second.startswith("also FLOPs ")


UNKNOWN = Measurement.at_least(Metric.FLOPS, 8_000_000, reason="my::op has no formula")


@pytest.mark.parametrize(
    ("base", "head", "told"),
    [
        (exact(1)[1:], (UNKNOWN, *exact(1)[1:]),
         "FLOPs changed is not known: base: it was not counted; head: my::op has no formula"),
        ((UNKNOWN, *exact(1)[1:]), (UNKNOWN, *exact(1)[1:]),
         "FLOPs changed is not known: my::op has no formula"),
        ((), (), "FLOPs, kernels and memory changed is not known: it was not counted"),
        ((), exact(1), "FLOPs, kernels and memory changed is not known: base: it was not counted"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_not_called_unchanged(
    base: tuple[Measurement, ...], head: tuple[Measurement, ...], told: str
) -> None:
    """With the reason, by side where the two differ."""
    assert explained(base=base, head=head) == [f"whether {told}"]


def test_what_is_not_known_stands_beside_a_cause() -> None:
    """It may be one as well."""
    base = (UNKNOWN, *exact(1)[1:])
    head = (UNKNOWN, Measurement.exact(Metric.KERNELS, 24), *exact(1)[2:])
    assert explained(base=base, head=head) == [
        "because kernels rose 100.0 %: 12 to 24",
        "whether FLOPs changed is not known: my::op has no formula",
    ]


def test_a_changed_count_is_told_where_the_time_is_the_same() -> None:
    """It is no reason for anything then."""
    lines = list(ab_lines(report(replace(SAME, head=exact(8_960_000)))))
    assert lines[4] == "  FLOPs rose 12.0 % in layer3: 8.00 MFLOP to 8.96 MFLOP"


def test_what_was_not_measured_has_no_numbers() -> None:
    """A reason and what to do in their place."""
    lines = list(ab_lines(report(FAILS)))
    assert lines[3].split() == ["unmeasured", "t.py::test_fails"]
    assert lines[4:6] == ["  it fails in head", "  mend it"]


def test_nothing_at_all_has_no_table() -> None:
    """Two lines of what it was, and the closing one."""
    lines = list(ab_lines(report(restarts=1)))
    assert len(lines) == 3
    assert lines[-1].startswith("0 comparisons: nothing was compared;")


def test_environments_that_differ_are_told() -> None:
    """A difference may be theirs."""
    other = replace(HEAD, versions={**VERSIONS, "torch": "2.15"}, threads=1)
    assert list(ab_lines(report(SAME, head=other)))[1] == (
        "base with python 3.11.7, torch 2.14.1, 2 threads, head with python 3.11.7, torch 2.15, "
        "1 thread: the difference may be theirs"
    )


@pytest.mark.parametrize(
    ("others", "label"),
    [
        ([], "t.py::test_same"),
        ([{"call": 2}], "t.py::test_same (call 1)"),
        ([{"phase": "training"}], "t.py::test_same (inference)"),
        ([{"call": 2, "phase": "training"}], "t.py::test_same (call 1, inference)"),
    ],
)
def test_calls_of_one_test_are_told_apart(others: list[dict[str, Any]], label: str) -> None:
    """By what differs between them, and by nothing else."""
    first = replace(SAME, call=1)
    rows = [first, *(replace(first, **each) for each in others)]
    lines = [line for line in ab_lines(report(*rows)) if line.startswith("same")]
    assert lines[0].endswith(f"  {label}")


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        (
            Cause(Metric.FLOPS, 8_000_000, 8_960_000, (Part("layer3", 1, 2),)),
            "FLOPs rose 12.0 % in layer3: 8.00 MFLOP to 8.96 MFLOP",
        ),
        (
            Cause(Metric.PARAMS, 1000, 900, (Part("head.0", 100, 0),)),
            "parameters fell 10.0 % in head.0, which head does not have: 1.00k to 0.900k",
        ),
        (
            Cause(Metric.KERNELS, 10, 11, (Part("10", 0, 1),)),
            "kernels rose 10.0 % in 10, which base does not have: 10 to 11",
        ),
        (
            Cause(Metric.KERNELS, 10, 14, (Part("a", 1, 4), Part("b", 1, 2))),
            "kernels rose 40.0 %, most of it in a (+3), b (+1): 10 to 14",
        ),
        (Cause(Metric.MEMORY, 1000, 2000, ()), "memory rose 100.0 %: 1.00 kB to 2.00 kB"),
        (Cause(Metric.KERNELS, 0, 3, ()), "kernels rose: 0 to 3"),
    ],
)
def test_a_cause_in_words(cause: Cause, text: str) -> None:
    """What, by how much, where, and both numbers."""
    assert cause_text(cause) == text


def test_markdown_is_a_table_and_the_reasons_below() -> None:
    """Names are shown as they are: with their brackets, bars and underscores."""
    lines = ab_markdown(report(SAME, SLOWER)).splitlines()
    start = lines.index(
        "| time | head / base | base | head | FLOPs | kernels | memory | parameters | test |"
    )
    assert lines[start + 1] == "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    assert lines[start + 2] == (
        "| **slower** | 1.121 (1.098 to 1.144) | 4.51 ms | 5.06 ms | +12.0 % | 12 | 3.00 MB | 2.50M "
        "| t.py::test\\_slow\\[a\\|b\\] |"
    )
    assert "- t.py::test\\_slow\\[a\\|b\\]: slower" in lines
    assert "  - because FLOPs rose 12.0 % in layer3: 8.00 MFLOP to 8.96 MFLOP" in lines
    assert lines[-1].startswith("2 comparisons: 1 slower, 1 same;")


def test_a_report_survives_json() -> None:
    """All numbers, with the exact metrics of both sides; without an interval its ends are null."""
    wide = replace(SAME, timing=Timing(Ratio(1.0, 0.0, float("inf")), 1.0, 1.0, (0.0,)))
    told = json.loads(json.dumps(report(SLOWER, wide, GONE).to_dict(), allow_nan=False))
    assert told["threshold"] == 0.05
    assert told["base"] == {
        "name": "main (1234567890)", "commit": "1234567890ab", "versions": VERSIONS, "threads": 2,
        "dirty": False,
    }  # fmt: skip
    slower, same, gone = told["comparisons"]
    assert (slower["test"], slower["change"]) == ("t.py::test_slow[a|b]", "slower")
    assert slower["ratio"] == {"value": 1.121, "low": 1.098, "high": 1.144}
    assert (slower["base_s"], slower["head_s"]) == (0.00451, 0.00506)
    assert slower["log_ratios"] == [0.11, 0.12]
    assert slower["exact"]["base"]["flops"]["value"] == 8_000_000
    assert slower["exact"]["head"]["flops"]["value"] == 8_960_000
    assert slower["exact"]["head"]["flops"]["definition"] == "flops/1"
    assert same["ratio"] == {"value": 1.0, "low": 0.0, "high": None}
    assert (gone["ratio"], gone["change"]) == (None, "only in base")
