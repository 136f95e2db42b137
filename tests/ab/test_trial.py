"""Trials: how a test's restarts add up, when they are looked at, and what ends them early."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from pytest_nnscale.ab.pair import Key, Plan
from pytest_nnscale.ab.ratio import Change
from pytest_nnscale.ab.trial import Trial
from pytest_nnscale.ab.turns import Turns
from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.measurement import Measurement, Metric

FLOPS = Measurement.exact(Metric.FLOPS, 8)
BODY = Key(0, "inference")


def call(number: int = 0, **more: Any) -> dict[str, Any]:
    exact = [FLOPS.to_dict()]
    return {"call": number, "phase": "inference", "subject": "Net", "exact": exact, **more}


def of(number: int) -> Key:
    return Key(number, "inference")


def ended(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "outcome": "passed", "why": "", "text": "", "calls": list(calls), "lacking": [], **more
    }  # fmt: skip


LACKS = {"call": 0, "reason": "the body cannot run twice", "remedy": "use it", "missing": ""}
NO_GPU = {**LACKS, "reason": "this machine has no cuda device", "missing": "cuda"}
SKIPPED = ended(outcome="skipped", why="no weights here")
FAILED = ended(outcome="failed", why="AssertionError: 3 != 4", text="the whole story")


def turns(ratio: float) -> Turns:
    return Turns((0.01, 0.01), (0.01 * ratio, 0.01 * ratio))


def run(
    trial: Trial, *ratios: float, plan: Plan | None = None, start_s: float = 2.0, own_s: float = 2.0
) -> None:
    """Let a trial live through restarts with some ratios."""
    for ratio in ratios:
        assert trial.wants(BODY)
        trial.add(BODY, turns(ratio))
        trial.spent_s += own_s
        trial.close_restart(ended(call()), ended(call()), plan or Plan(), start_s)


def only(trial: Trial) -> Any:
    (comparison,) = trial.comparisons()
    return comparison


@pytest.mark.parametrize(
    ("around", "change"),
    [(1.2, Change.SLOWER), (1 / 1.2, Change.FASTER), (1.0, Change.SAME)],
)
def test_six_restarts_may_be_enough(around: float, change: Change) -> None:
    """Five never are."""
    trial = Trial("t")
    run(trial, *[around * luck for luck in (0.995, 1.005, 1.0, 0.997, 1.003)])
    assert not trial.decided
    run(trial, around)
    assert trial.decided
    assert only(trial).change is change
    assert only(trial).timing.ratio.value == pytest.approx(around, rel=1e-3)
    assert (only(trial).timing.base_s, only(trial).timing.head_s) == (
        0.01,
        pytest.approx(0.01 * around, rel=0.01),
    )
    assert only(trial).base == only(trial).head == (FLOPS,)


def test_an_undecided_one_goes_on_until_time_is_up() -> None:
    """A restart takes 4 s here, of which half is the start: fifteen fit into a minute."""
    trial = Trial("t")
    restarts = 0
    while not trial.decided:
        run(trial, 1.3 if restarts % 2 else 1.0)
        restarts += 1
    assert restarts == 15
    assert only(trial).change is Change.INCONCLUSIVE
    assert len(only(trial).timing.logs) == 15


def test_the_time_of_restarts_decides_how_often_to_look_before_the_first_look() -> None:
    """A machine that is slower later changes nothing, or luck would choose the number."""
    trial = Trial("t")
    run(trial, *[1.0, 1.3] * 3)
    assert trial.planned == 9
    run(trial, *[1.0, 1.3] * 4, own_s=100)
    assert not trial.decided
    assert trial.planned == 15


def test_six_restarts_are_made_whatever_they_take() -> None:
    """And the one look then has the whole error to spend."""
    trial = Trial("t")
    run(trial, *[1.0, 1.01] * 3, own_s=100)
    assert trial.decided
    half = 4.0321 * math.log(1.01) / 2 * math.sqrt(6 / 5) / math.sqrt(6)
    assert only(trial).timing.ratio.high == pytest.approx(1.01**0.5 * math.exp(half), rel=1e-6)


def test_an_inconclusive_one_says_how_long_it_would_take() -> None:
    """Half a sentence to copy, and enough where it is followed."""
    trial = Trial("t")
    run(trial, *[1.0, 1.2] * 4, plan=Plan(max_time_s=32))
    comparison = only(trial)
    assert comparison.change is Change.INCONCLUSIVE
    told = re.fullmatch(r"give it longer: --max-time=(\d+)", comparison.remedy)
    assert told is not None
    longer = Trial("t")
    ratios = [1.0, 1.2] * 200
    while not longer.decided:
        run(longer, ratios.pop(), plan=Plan(max_time_s=float(told[1])))
    assert only(longer).change is Change.SLOWER


def test_at_the_threshold_itself_no_time_is_enough() -> None:
    """Another threshold is, or a quieter machine."""
    trial = Trial("t")
    run(trial, *[1.05 * 1.1, 1.05 / 1.1] * 4, plan=Plan(max_time_s=32))
    assert only(trial).remedy.startswith("it is too noisy, or too close to the threshold")


@pytest.mark.parametrize(
    ("base", "head", "change", "reason"),
    [
        (ended(call()), FAILED, Change.UNMEASURED, "it fails in head: AssertionError: 3 != 4"),
        (FAILED, ended(call()), Change.UNMEASURED, "it fails in base: AssertionError: 3 != 4"),
        (FAILED, SKIPPED, Change.UNMEASURED, "it fails in base: AssertionError: 3 != 4"),
        (SKIPPED, SKIPPED, Change.SKIPPED, "no weights here"),
        (SKIPPED, ended(call()), Change.ONLY_IN_HEAD, "skipped in base: no weights here"),
        (ended(call()), SKIPPED, Change.ONLY_IN_BASE, "skipped in head: no weights here"),
        (ended(lacking=[NO_GPU]), ended(lacking=[NO_GPU]), Change.SKIPPED, NO_GPU["reason"]),
        (
            ended(call()),
            ended(lacking=[NO_GPU]),
            Change.ONLY_IN_BASE,
            f"skipped in head: {NO_GPU['reason']}",
        ),
        (ended(call()), ended(lacking=[LACKS]), Change.UNMEASURED, f"head: {LACKS['reason']}"),
        (
            ended(call(), lacking=[LACKS]),
            ended(call(), lacking=[LACKS]),
            Change.UNMEASURED,
            f"base: {LACKS['reason']}",
        ),
        (ended(), ended(), Change.SKIPPED, "it runs no model: the budget that it inherits"),
    ],
)
def test_what_cannot_be_compared_says_why(
    base: dict[str, Any], head: dict[str, Any], change: Change, reason: str
) -> None:
    """A failing test and one that cannot be timed are unmeasured; what both skip is let be."""
    trial = Trial("t")
    trial.close_restart(base, head, Plan(), 2.0)
    assert trial.decided
    assert not trial.wants(BODY)
    assert only(trial).change is change
    assert only(trial).reason.startswith(reason)


def test_a_device_that_is_not_here_does_not_hide_what_is_measured() -> None:
    """Budgets for two devices stand side by side."""
    trial = Trial("t")
    trial.add(BODY, turns(1.0))
    both = ended(call(), lacking=[NO_GPU])
    trial.close_restart(both, both, Plan(), 2.0)
    assert not trial.decided


def test_the_story_of_a_failure_is_kept() -> None:
    """For whoever asks why."""
    trial = Trial("t")
    trial.close_restart(FAILED, ended(call()), Plan(), 2.0)
    assert only(trial).output == "the whole story"


def test_a_failure_in_a_later_restart_counts() -> None:
    """A test that fails now and then is no measure of anything."""
    trial = Trial("t")
    run(trial, 1.0, 1.0)
    trial.close_restart(ended(call()), FAILED, Plan(), 2.0)
    assert only(trial).change is Change.UNMEASURED


def test_calls_that_only_one_side_makes_are_told() -> None:
    """Beside those that both make."""
    trial = Trial("t")
    for _ in range(6):
        trial.add(of(1), turns(1.0))
        trial.close_restart(ended(call(1)), ended(call(1), call(2)), Plan(), 2.0)
    assert [(c.call, c.change) for c in trial.comparisons()] == [
        (1, Change.SAME),
        (2, Change.ONLY_IN_HEAD),
    ]


def test_a_call_that_is_not_made_every_time_is_unmeasured() -> None:
    """Its restarts would not be the others'."""
    trial = Trial("t")
    run(trial, 1.0)
    trial.close_restart(ended(call()), ended(call()), Plan(), 2.0)
    assert only(trial).change is Change.UNMEASURED
    assert "not made in every run" in only(trial).reason


def test_a_decided_call_is_not_timed_again() -> None:
    """While another of its test is still open."""
    trial = Trial("t")
    both = ended(call(1), call(2))
    for restart in range(6):
        trial.add(of(1), turns(1.0))
        trial.add(of(2), turns(1.3 if restart % 2 else 1.0))
        trial.spent_s += 2
        trial.close_restart(both, both, Plan(), 2.0)
    assert not trial.decided
    assert (trial.wants(of(1)), trial.wants(of(2))) == (False, True)
    assert trial.comparisons()[0].change is Change.SAME


def test_each_call_is_looked_at_by_its_own_plan() -> None:
    """One that was decided early does not count for the other."""
    trial = Trial("t")
    both = ended(call(1), call(2))
    while not trial.decided:
        if trial.wants(of(1)):
            trial.add(of(1), turns(1.0))
        trial.add(of(2), turns(1.3 if trial.restarts % 2 else 1.0))
        trial.spent_s += 2
        trial.close_restart(both, both, Plan(), 2.0)
    assert [len(c.timing.logs) for c in trial.comparisons() if c.timing] == [6, 15]


def live(trial: Trial, base: list[dict[str, Any]], head: list[dict[str, Any]]) -> list[Any]:
    """Let a trial live through six restarts in which all that both make is timed; return what comes."""
    both = [Key.of(c) for c in base if Key.of(c) in map(Key.of, head)]
    for _ in range(6):
        for key in both:
            if trial.wants(key):
                trial.add(key, turns(1.0))
        trial.spent_s += 2
        trial.close_restart(ended(*base), ended(*head), Plan(), 2.0)
    return [(c.call, c.phase, c.change, c.reason) for c in trial.comparisons()]


def test_a_phase_that_only_head_has_is_told() -> None:
    """Beside the training that both have."""
    step = call(1, phase="training")
    assert live(Trial("t"), [step], [call(1), step]) == [
        (1, "training", Change.SAME, ""),
        (1, "inference", Change.ONLY_IN_HEAD, "the other side makes call 1 (training) of Net"),
    ]


def test_a_body_is_no_call_of_the_fixture() -> None:
    """A test that was moved to it has one of each, and nothing to compare."""
    told = live(Trial("t"), [call(0)], [call(1)])
    assert [(number, change) for number, _, change, _ in told] == [
        (0, Change.ONLY_IN_BASE),
        (1, Change.ONLY_IN_HEAD),
    ]
    assert told[1][3] == "the other side makes the call in its body (inference) of Net"


def test_a_new_call_before_the_others_leaves_them_unmeasured() -> None:
    """Or base's model would be held against head's encoder."""
    encoder = call(1, subject="Encoder")
    told = live(Trial("t"), [call(1)], [encoder, call(2)])
    assert [(number, change) for number, _, change, _ in told] == [
        (1, Change.UNMEASURED),
        (2, Change.ONLY_IN_HEAD),
    ]
    assert told[0][3] == (
        "base makes call 1 (inference) of Net, head call 1 (inference) of Encoder, call 2 (inference) "
        "of Net: which of them belong together is not known"
    )


def test_calls_in_another_order_are_unmeasured() -> None:
    """There are as many as before, and each is another."""
    a, b = {"subject": "A"}, {"subject": "B"}
    told = live(Trial("t"), [call(1, **a), call(2, **b)], [call(1, **b), call(2, **a)])
    assert [change for _, _, change, _ in told] == [Change.UNMEASURED] * 2


def test_another_name_in_the_same_place_is_compared_and_told() -> None:
    """A class that was renamed is the usual case."""
    told = live(Trial("t"), [call(1)], [call(1, subject="FastNet")])
    assert told == [(1, "inference", Change.SAME, "base calls Net, head FastNet")]


def test_a_call_that_is_refused_leaves_the_others() -> None:
    """A device that is another on each side."""
    trial = Trial("t")
    for _ in range(6):
        trial.refuse(of(1), "call 1 runs on cpu in base, and on cuda:0 in head", remedy="the same")
        trial.add(of(2), turns(1.0))
        trial.spent_s += 2
        trial.close_restart(ended(call(1), call(2)), ended(call(1), call(2)), Plan(), 2.0)
    refused, same = trial.comparisons()
    assert (refused.change, refused.reason[:18]) == (Change.UNMEASURED, "call 1 runs on cpu")
    assert same.change is Change.SAME


NOT_QUIET = CannotMeasure("the machine was not quiet", remedy="wait: --nnscale-max-wait")


def test_a_disturbed_restart_is_made_up_for() -> None:
    """By one more: six of them count."""
    trial = Trial("t")
    run(trial, 1.2, 1.19)
    trial.lose(BODY, NOT_QUIET)
    trial.close_restart(ended(call()), ended(call()), Plan(), 2.0)
    assert not trial.decided
    run(trial, 1.21, 1.2, 1.19)
    assert not trial.decided
    run(trial, 1.2)
    assert only(trial).change is Change.SLOWER
    assert len(only(trial).timing.logs) == 6


def test_what_is_always_disturbed_is_unmeasured() -> None:
    """With the reason, how often, and what to do."""
    trial = Trial("t")
    for _ in range(3):
        assert not trial.decided
        trial.lose(BODY, NOT_QUIET)
        trial.close_restart(ended(call()), ended(call()), Plan(), 2.0)
    assert trial.decided
    found = only(trial)
    assert (found.change, found.reason) == (
        Change.UNMEASURED,
        "the machine was not quiet, in 3 restarts",
    )
    assert found.remedy == "wait: --max-wait"


@pytest.mark.parametrize("around", [1.2, 1 / 1.2, 1.0], ids=["slower", "faster", "same"])
def test_a_gpu_that_throttled_leaves_it_inconclusive(around: float) -> None:
    """Whatever the interval says: it is no verdict on the code."""
    trial = Trial("t")
    for restart in range(6):
        disturbed = "the GPU throttled (power cap)" if restart == 3 else ""
        trial.add(BODY, turns(around))
        trial.spent_s += 2
        trial.close_restart(ended(call()), ended(call(disturbed=disturbed)), Plan(), 2.0)
    assert trial.decided
    assert only(trial).change is Change.INCONCLUSIVE
    assert only(trial).reason == "the GPU throttled (power cap) in head, in 1 of 6 restarts"
    assert "let the GPU cool down" in only(trial).remedy


def test_identical_code_is_not_called_slower_for_threads_that_wait() -> None:
    """Seen beside a busy core: head took 800 times as long as base in five of six restarts."""
    trial = Trial("t")
    for log in (6.671, 6.656, 6.568, 6.672, 6.658, -0.181):
        head_s = 40e-6 * math.exp(log)
        trial.add(BODY, Turns((40e-6,) * 2, (head_s,) * 2))
        trial.spent_s += 2
        trial.close_restart(ended(call()), ended(call()), Plan(max_time_s=24), 2.0)
    assert trial.decided
    assert only(trial).change is Change.INCONCLUSIVE
    assert only(trial).timing.ratio.low > 1.05


@pytest.mark.parametrize(("apart", "change"), [(1.9, Change.SLOWER), (2.1, Change.INCONCLUSIVE)])
def test_restarts_that_are_far_apart_decide_nothing(apart: float, change: Change) -> None:
    """A few of them have no interval that could be believed; a machine that drifts is another thing."""
    trial = Trial("t")
    for restart in range(6):
        base_s = 0.01 * (apart if restart == 2 else 1.0)
        trial.add(BODY, Turns((base_s,) * 2, (1.2 * base_s,) * 2))
        trial.spent_s += 2
        trial.close_restart(ended(call()), ended(call()), Plan(max_time_s=24), 2.0)
    assert trial.decided
    assert only(trial).change is change
    if change is Change.INCONCLUSIVE:
        assert only(trial).reason == "base took 2.1 times as long in one restart as in another"
        assert only(trial).remedy.startswith("have nothing else run, or use fewer threads")


def test_what_settles_a_trial_before_its_first_end_decides_it() -> None:
    """A worker that died in it: there is no end of the test to close the restart with."""
    trial = Trial("t", file="tests/t.py")
    trial.settle(Change.UNMEASURED, "it was killed", output="dying")
    assert trial.decided
    assert (only(trial).reason, only(trial).output, only(trial).file) == (
        "it was killed", "dying", "tests/t.py",
    )  # fmt: skip
