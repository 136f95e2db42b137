"""Verdicts in words: the two numbers, what is unknown, and what to do."""

from __future__ import annotations

import pytest
from torch import nn

from pytest_nnscale.budget import Budget, Outcome, Verdict, judge
from pytest_nnscale.measurement import Measurement, Metric, Share
from pytest_nnscale.naming import joint_name
from pytest_nnscale.report.explanation import absence, explain, headline

NO_FORMULA = "no formula for aten::lstm in rnn (LSTM), called once"
DEMAND = "--nnscale-require=energy makes its absence a failure"


def verdict(limit: float, found: Measurement, **budget: object) -> Verdict:
    held = Budget(found.metric, limit, **budget)  # type: ignore[arg-type]
    return Verdict(held, found, judge(held, found))


def test_over_says_both_numbers_and_by_how_much() -> None:
    """And what may be done about it."""
    over = verdict(100, Measurement.exact(Metric.PARAMS, 120, subject="Net"))
    assert explain([over]).splitlines() == [
        "max_params: Net needs 120, budget 100 (+20, +20.0 %)",
        "  make the model smaller, or raise the budget",
    ]


def test_over_by_a_lower_bound_names_what_is_unknown() -> None:
    """`at least` alone would leave the reader wondering what else there is."""
    found = Measurement.at_least(
        Metric.FLOPS, 384, reason=NO_FORMULA, subject="Net", notes=("noted",)
    )
    over = verdict(100, found)
    assert over.outcome is Outcome.OVER
    assert explain([over]).splitlines() == [
        "max_flops: Net needs at least 384 FLOP, budget 100 FLOP (+284 FLOP, +284.0 %)",
        f"  a lower bound: {NO_FORMULA}",
        "  note: noted",
        "  make the model smaller, or raise the budget",
    ]


def test_unmeasured_says_what_is_unknown_once() -> None:
    """Below the limit the unknown operator is the reason itself."""
    found = Measurement.at_least(
        Metric.FLOPS, 384, reason=NO_FORMULA, remedy="write one", subject="Net"
    )
    assert explain([verdict(1000, found)]).splitlines() == [
        "max_flops: Net could not be measured, budget 1.00 kFLOP; "
        f"counted so far 384 FLOP: {NO_FORMULA}",
        "  write one",
    ]


def test_numbers_far_apart_are_each_in_their_unit() -> None:
    """A budget of one FLOP is not 0.00100 kFLOP."""
    line = headline(verdict(1, Measurement.exact(Metric.FLOPS, 1080, subject="Net")))
    assert line.startswith("max_flops: Net needs 1.08 kFLOP, budget 1 FLOP (+1.08 kFLOP, ")
    line = headline(verdict(1e-6, Measurement(Metric.LATENCY, 0.00815, 0.008, 0.009)))
    assert "needs 8.15 ms (between 8.00 ms and 9.00 ms), budget 1.00 us (+8.15 ms, " in line


def test_an_inconclusive_number_shows_its_interval() -> None:
    """The limit lies inside."""
    line = headline(verdict(0.010, Measurement(Metric.LATENCY, 0.010, 0.009, 0.011), quantile=0.9))
    assert line == (
        "max_latency_ms (p90): the test takes between 9.00 ms and 11.0 ms, budget 10.0 ms: "
        "inconclusive"
    )


def efficiency(lower: float, value: float, upper: float, **more: object) -> Measurement:
    return Measurement(Metric.EFFICIENCY, value, lower, upper, subject="Net", **more)


def test_what_is_not_reached_says_both_numbers_the_right_way_round() -> None:
    """A budget that has to be reached is not exceeded, and raising it would not help."""
    under = verdict(0.4, efficiency(0.302, 0.31, 0.318, notes=("it takes 3 ms",)))
    assert under.outcome is Outcome.OVER
    assert explain([under]).splitlines() == [
        "min_efficiency: Net reaches 31.0 % (between 30.2 % and 31.8 %), budget at least 40.0 %",
        "  note: it takes 3 ms",
        "  find what holds it up, such as many small operators, or lower the budget",
    ]


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            efficiency(0.44, 0.45, 0.46),
            "reaches 45.0 % (between 44.0 % and 46.0 %), budget at least 40.0 %",
        ),
        (
            efficiency(0.39, 0.4, 0.41),
            "reaches between 39.0 % and 41.0 %, budget at least 40.0 %: inconclusive",
        ),
        (
            efficiency(0.44, 0.45, 0.46, disturbed="the GPU throttled (power cap)"),
            "reaches between 44.0 % and 46.0 %, budget at least 40.0 %: inconclusive, "
            "since the GPU throttled (power cap)",
        ),
        (
            efficiency(0.2, 0.4, 0.8),
            "could not be measured, budget at least 40.0 %: it reaches between 20.0 % and 80.0 %, "
            "too far apart to say on which side",
        ),
        (
            Measurement.nothing(Metric.EFFICIENCY, reason=NO_FORMULA, subject="Net"),
            f"could not be measured, budget at least 40.0 %: {NO_FORMULA}",
        ),
    ],
)
def test_a_budget_that_has_to_be_reached_is_told_as_one(found: Measurement, sentence: str) -> None:
    """Whatever its outcome."""
    assert headline(verdict(0.4, found)) == f"min_efficiency: Net {sentence}"


def test_a_failure_does_not_recommend_the_option_that_made_it_one() -> None:
    """What a machine lacks is red only where --nnscale-require says so; a skip tells how."""
    missing = Measurement.nothing(
        Metric.ENERGY, reason="no counter", remedy="buy one", missing="energy", subject="Net"
    )
    first = "max_energy_j: Net could not be measured, budget 1.00 J: no counter"
    assert explain([verdict(1.0, missing)]).splitlines() == [first, "  buy one"]
    assert absence(verdict(1.0, missing)) == f"{first}; buy one; {DEMAND}"


def test_without_a_remedy_there_is_no_line_for_it() -> None:
    """Neither an empty one, nor a semicolon before nothing."""
    missing = Measurement.nothing(Metric.ENERGY, reason="no counter", missing="energy")
    assert len(explain([verdict(1.0, missing)]).splitlines()) == 1
    assert absence(verdict(1.0, missing)).endswith(f": no counter; {DEMAND}")


def test_the_call_is_named_where_there_are_several() -> None:
    """Each call of the fixture is judged by itself."""
    found = Measurement.exact(Metric.PARAMS, 120, subject="Net")
    held = Budget(Metric.PARAMS, 100)
    second = Verdict(held, found, Outcome.OVER, call=2)
    assert headline(second, several_calls=True).startswith("max_params: Net (call 2) needs")
    assert headline(second).startswith("max_params: Net needs")


def test_an_inherited_budget_says_where_it_stands() -> None:
    """Who did not write it has to find it."""
    found = Measurement.exact(Metric.PARAMS, 120, subject="Net")
    inherited = verdict(100, found, own=False, origin="nnscale_budgets '*'")
    assert "  the budget comes from nnscale_budgets '*'" in explain([inherited]).splitlines()


def shares_of(amounts: dict[str, int]) -> tuple[Share, ...]:
    """Return shares of leaves, with the sums of what holds them."""
    paths = {""} | {
        ".".join(path.split(".")[:depth])
        for path in amounts
        for depth in range(1, path.count(".") + 2)
    }
    return tuple(
        Share(
            path,
            "Linear" if path in amounts else "Block",
            amounts.get(path, 0),
            sum(n for leaf, n in amounts.items() if f"{leaf}.".startswith(f"{path}." * bool(path))),
        )
        for path in sorted(paths)
    )


def test_the_modules_that_hold_most_are_shown() -> None:
    """Largest first, with their share of the whole, opened until there are three."""
    shares = shares_of({"head": 100, "body.a": 500, "body.b": 300, "tail": 100})
    over = verdict(10, Measurement.exact(Metric.PARAMS, 1000, subject="Net", shares=shares))
    assert explain([over]).splitlines()[1:-1] == [
        "  body  800   80.0 %  Block",
        "  head  100   10.0 %  Linear",
        "  tail  100   10.0 %  Linear",
    ]
    every = explain([over], verbosity=2).splitlines()[1:-1]
    assert [line.split()[0] for line in every] == ["body", "body.a", "body.b", "head", "tail"]


class Encoder(nn.Linear):
    pass


class Decoder(nn.Linear):
    pass


class Critic(nn.Linear):
    pass


@pytest.mark.parametrize(
    ("kinds", "name"),
    [
        ([], ""),
        ([Encoder], "Encoder"),
        ([Encoder, Decoder], "Encoder + Decoder"),
        ([Encoder, Encoder], "Encoder + Encoder"),
        ([Encoder, Decoder, Encoder], "Encoder + Decoder + Encoder"),
        ([Encoder] * 20, "20 x Encoder"),
        ([Encoder, Decoder] + [Critic] * 7, "Encoder + Decoder + 7 x Critic"),
        (
            [Encoder, Decoder, Encoder, Critic, *[nn.Linear] * 3, nn.Bilinear],
            "2 x Encoder + Decoder + Critic + 4 more",
        ),
    ],
)
def test_the_subject_of_many_models_stays_short(kinds: list[type[nn.Module]], name: str) -> None:
    """Equal ones are counted, and three kinds are named."""
    sizes = {nn.Bilinear: (1, 1, 1)}
    assert joint_name([kind(*sizes.get(kind, (1, 1))) for kind in kinds]) == name


@pytest.mark.parametrize(
    ("limit", "outcome"),
    [
        (2.0, Outcome.WITHIN),
        (1.0, Outcome.INCONCLUSIVE),
        (0.5, Outcome.OVER),
    ],
)
def test_an_estimate_is_told_as_one_whatever_it_comes_to(limit: float, outcome: Outcome) -> None:
    """Also in the warning of what is inconclusive, which is its headline alone."""
    found = Measurement(Metric.ENERGY, 1.0, 0.9, 1.1, estimated=True)
    held = verdict(limit, found)
    assert held.outcome is outcome
    assert headline(held).endswith(": an estimate, no measurement")


def test_an_estimate_that_says_nothing_is_one_too() -> None:
    """Its ends lie too far apart."""
    found = verdict(1.0, Measurement(Metric.ENERGY, 1.0, 0.3, 2.0, estimated=True))
    assert found.outcome is Outcome.UNMEASURED
    assert headline(found).endswith(": an estimate, no measurement")


def test_an_estimate_where_a_measurement_is_required_says_what_to_do() -> None:
    """It is within, and red: by an option that the reader may not have set."""
    found = verdict(2.0, Measurement(Metric.ENERGY, 1.0, 0.9, 1.1, estimated=True))
    assert "--nnscale-require=energy takes a measurement" in explain([found])
