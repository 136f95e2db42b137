"""The benchmark of a test that uses pytest-benchmark's fixture, judged by the rounds that it ran.

What is measured is the call that was handed to `benchmark`, not the body around it. Its rounds run
as they always do, with nothing of ours active. When they are over, before the test goes on, the
call runs once more under a counter, and what that did is put back.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nnscale import keys
from pytest_nnscale.body import modules_in
from pytest_nnscale.collecting import budgets_of
from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.measurement import Metric
from pytest_nnscale.report.progress import announcer
from pytest_nnscale.taking_turns import effort_of
from pytest_nnscale.target import Target, observe_target
from pytest_nnscale.verdicts import Judged, judge_observed, with_rest

if TYPE_CHECKING:
    from pytest_nnscale.benchmark_timing import Benchmark
    from pytest_nnscale.budget import Budget, Verdict
    from pytest_nnscale.observation import Observation

_ONE_OF_THE_TWO = (
    "nnscale was called in what is benchmarked, where every round would be counted; "
    "benchmark the model itself: benchmark(model, x)"
)


def watch(item: pytest.Item) -> None:
    """Have what a test benchmarks judged where it does; a fixture that is not theirs is let be."""
    theirs = sys.modules.get("pytest_benchmark.fixture")
    fixture = item.funcargs["benchmark"]  # type: ignore[attr-defined]
    if (
        theirs is not None
        and isinstance(fixture, theirs.BenchmarkFixture)
        and hasattr(fixture, "_raw")
        and hasattr(fixture, "_raw_pedantic")
    ):
        item.stash[keys.BENCHMARKED] = Benchmarked(item, fixture)


class Benchmarked:
    """The benchmark of one test: its verdicts, once it has run.

    A test that also has the nnscale fixture is counted by its calls of that, and timed by this.
    """

    def __init__(self, item: pytest.Item, fixture: Any) -> None:
        self._item, self._fixture = item, fixture
        self._caller = item.stash.get(keys.CALLER, None)
        self._disturbed: CannotMeasure | None = None
        self.used = False
        self.taken: tuple[Budget, ...] = ()
        self.judged = Judged(())
        if self._caller is not None:
            self._caller.leave_sampled()
        # Where `benchmark(...)` and `benchmark.pedantic(...)` lead, also when another fixture got
        # hold of these before. They allow one use, and it ends ours.
        fixture._raw, fixture._raw_pedantic = self._raw, self._raw_pedantic

    def _raw(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        with self._rounds_alone():
            result = self._fixture._raw(function, *args, **kwargs)
        more = "@pytest.mark.benchmark(min_rounds={0}), or --benchmark-min-rounds={0}"
        self._judge(Target(function, args, kwargs), more)
        return result

    def _raw_pedantic(
        self,
        target: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        setup: Callable[[], Any] | None = None,
        teardown: Callable[..., Any] | None = None,
        **rounds: Any,
    ) -> Any:
        __tracebackhide__ = True
        with self._rounds_alone():
            result = self._fixture._raw_pedantic(target, args, kwargs, setup, teardown, **rounds)
        more = "benchmark.pedantic(..., rounds={0})"
        self._judge(Target(target, args, kwargs or {}, setup, teardown), more)
        return result

    @contextmanager
    def _rounds_alone(self) -> Iterator[None]:
        """Give the fixture its own methods back, hold off nnscale and whatever could disturb."""
        del self._fixture._raw, self._fixture._raw_pedantic
        self.used = True
        quiet = ExitStack()
        try:
            if self._caller is not None:
                self._caller.barred = _ONE_OF_THE_TWO
            if self._fixture.enabled and _timed(budgets_of(self._item)):
                effort = effort_of(self._item.config)
                with self._noticing():
                    quiet.enter_context(effort.quiet("cpu"))
            yield
        finally:
            with self._noticing():
                quiet.close()
            if self._caller is not None:
                self._caller.barred = ""

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        """Run on where others are not held off, and remember it."""
        try:
            yield
        except CannotMeasure as error:
            self._disturbed = error

    def _judge(self, target: Target, more: str) -> None:
        budgets = budgets_of(self._item)
        if not budgets:
            return
        from pytest_nnscale.benchmark_info import inform
        from pytest_nnscale.benchmark_timing import Benchmark
        from pytest_nnscale.references import references_of

        models = modules_in(self._item.funcargs)  # type: ignore[attr-defined]
        seen = observe_target(target, fallback_name=self._item.name, models=models)
        references = references_of(self._item, tuple(target.args), target.kwargs)
        seen = replace(seen, references=references)
        inform(self._fixture, _as_one_call(seen))
        if self._caller is not None:
            budgets = _sampled(budgets)
        self.taken = budgets
        benchmark = Benchmark(self._fixture, target, more, self._disturbed)
        self.judged = judge_observed(
            self._item,
            budgets,
            seen,
            lambda chosen: self._verdicts(chosen, seen, benchmark),
            what="the benchmarked call",
        )

    def close(self, budgets: Sequence[Budget]) -> Judged:
        """Return what was judged; a test that has left all timing to its benchmark must run one."""
        if self._caller is not None and self._caller.calls and not self.used:
            self.taken = _sampled(budgets)
            self.judged = with_rest(
                (),
                self.taken,
                reason="the test asked for the benchmark fixture and never used it",
                remedy="benchmark the model, benchmark(model, x), or drop the fixture",
            )
        return self.judged

    def _verdicts(
        self, budgets: Sequence[Budget], seen: Observation, benchmark: Benchmark
    ) -> tuple[Verdict, ...]:
        from pytest_nnscale.benchmark_timing import judge_timing
        from pytest_nnscale.judging import judge_observation

        effort, announce = effort_of(self._item.config), announcer(self._item.config)
        verdicts: list[Verdict] = []
        for phase, observed in (("inference", _as_one_call(seen)), ("training", seen)):
            of_phase = [budget for budget in budgets if budget.phase == phase]
            timed = _timed(of_phase)
            rest = [budget for budget in of_phase if budget not in timed]
            with announce(rest, observed.subject):
                verdicts += judge_observation(rest, observed, effort)
            announced = announce(timed, observed.subject)
            verdicts += judge_timing(timed, observed, benchmark, effort, announced=announced)
        return tuple(sorted(verdicts, key=lambda verdict: budgets.index(verdict.budget)))


def _sampled(budgets: Sequence[Budget]) -> tuple[Budget, ...]:
    return tuple(budget for budget in budgets if budget.metric.sampled)


def _timed(budgets: Sequence[Budget]) -> tuple[Budget, ...]:
    """Return the budgets that the time of a round tells of."""
    return tuple(b for b in budgets if b.metric in (Metric.LATENCY, Metric.EFFICIENCY))


def _as_one_call(seen: Observation) -> Observation:
    return replace(seen, count=seen.count and seen.count.as_one_call())
