"""The caller that the nnscale fixture hands out: what is called through it is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_nnscale.errors import BadWorkload

if TYPE_CHECKING:
    from pytest_nnscale.budget import Budget, Phase, Verdict
    from pytest_nnscale.comparing import Comparison
    from pytest_nnscale.meters.effort import Effort
    from pytest_nnscale.observation import Observation, References
    from pytest_nnscale.profiles import Profile
    from pytest_nnscale.report.progress import Announcer

# What a call may be held against, given its inputs.
ReferencesFor = Callable[[tuple[Any, ...], Mapping[str, Any]], "References"]


class NnscaleCaller:
    """Runs a model once for real, returns its output, and judges the call by the test's budgets."""

    def __init__(
        self,
        budgets: Sequence[Budget],
        effort: Effort,
        announce: Announcer,
        references: ReferencesFor,
    ) -> None:
        self._budgets = tuple(budgets)
        self._effort = effort
        self._announce = announce
        self._references = references
        self.verdicts: list[Verdict] = []
        self.calls = 0
        self.raised = 0
        self.closed = False
        self.barred = ""  # why no call is allowed now

    def __call__(self, model: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `model(*args, **kwargs)` once and return what it returns.

        Its errors are the test's own, and then nothing is recorded. A compiled model is called as
        it is, and counted from its eager self afterwards.
        """
        self._refuse_late_calls()
        __tracebackhide__ = True  # a model's error is shown at the line that called it
        from pytest_nnscale.called import observe_call, observe_step
        from pytest_nnscale.workload import Workload

        workload = Workload(model, args, kwargs)
        try:
            structure = all(budget.metric.structural for budget in self._budgets)
            output, observation = observe_call(workload, only_structure=structure)
            workload.check_devices()  # a call that raises shows its own error
        except BaseException:
            self.raised += 1
            raise
        observation = replace(observation, references=self._references(args, kwargs))
        training = [budget for budget in self._budgets if budget.phase == "training"]
        inference = [budget for budget in self._budgets if budget.phase == "inference"]
        count = observation.count
        self._judge(inference, replace(observation, count=count and count.as_one_call()))
        if training:
            trains = count is not None and count.backward
            if not trains:
                step = observe_step(workload)
                observation = replace(step, references=observation.references)
            self._judge(training, observation)
        self.calls += 1
        return output

    def profile(
        self,
        model: Callable[..., Any],
        args: tuple[Any, ...] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        phase: Phase = "inference",
    ) -> Profile:
        """Profile a model, judge what was measured, and leave the model as it was.

        Without inputs nothing runs, and the budgets for params and size are judged.
        """
        from pytest_nnscale import observing, profiles, profiling

        if self.barred:
            raise BadWorkload(self.barred)
        workload = profiling.workload_from(model, args, kwargs, phase)
        runs = args is not None or kwargs is not None
        observation = replace(
            observing.observe(workload, runs=runs),
            references=self._references(workload.args, workload.kwargs),
        )
        judged = [
            budget
            for budget in self._budgets
            if budget.metric.structural or (runs and budget.phase == phase)
        ]
        self._judge(judged, observation)
        self.calls += 1
        return profiles.profile_of(observation, profiling.EXACT if runs else profiling.STRUCTURAL)

    def compare(
        self,
        new: Callable[..., Any],
        old: Callable[..., Any],
        /,
        *args: Any,
        max_ratio: float = 1.05,
        **kwargs: Any,
    ) -> Comparison:
        """Call two models on the same inputs, and fail the test if the new one takes longer.

        That is, surely more than `max_ratio` times as long as the old one. Each is called once for
        real; then both are timed in turns, which leaves nothing behind, and the inputs are put
        back as they were. Returns both outputs and the ratio. Code that is no slower takes about
        the same time, never surely less: leave room, as the default of 5 % does.
        """
        self._refuse_late_calls()
        __tracebackhide__ = True
        from pytest_nnscale.budget import Verdict, judge
        from pytest_nnscale.comparing import compare, ratio_budget
        from pytest_nnscale.workload import Workload

        budget = ratio_budget(max_ratio)
        one, other = Workload(new, args, kwargs), Workload(old, args, kwargs)
        announced = self._announce([budget], f"{one.subject} beside {other.subject}")
        found = compare(one, other, budget, self._effort, announced=announced)
        self.verdicts.append(Verdict(budget, found.ratio, judge(budget, found.ratio)))
        return found

    def leave_sampled(self) -> None:
        """Leave the budgets for what is sampled to somebody else."""
        self._budgets = tuple(budget for budget in self._budgets if not budget.metric.sampled)

    def _refuse_late_calls(self) -> None:
        if self.barred:
            raise BadWorkload(self.barred)
        if self.closed:
            raise BadWorkload(
                "nnscale was called after the test had ended, where no budget judges the call; "
                "call it in the test"
            )

    def _judge(self, budgets: Sequence[Budget], observation: Observation) -> None:
        from pytest_nnscale.judging import judge_observation

        with self._announce(budgets, observation.subject):
            self.verdicts += judge_observation(
                budgets, observation, self._effort, call=self.calls + 1
            )
