"""The caller that the nnscale fixture hands out: what is called through it is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_nnscale.errors import BadWorkload

if TYPE_CHECKING:
    from pytest_nnscale.budget import Budget, Phase, Verdict
    from pytest_nnscale.comparing import Comparison
    from pytest_nnscale.counting.counter import Counter
    from pytest_nnscale.measurement import Measurement
    from pytest_nnscale.meters.effort import Effort
    from pytest_nnscale.observation import Observation
    from pytest_nnscale.profiles import Profile
    from pytest_nnscale.report.progress import Announcer
    from pytest_nnscale.workload import Workload

# What a call may be held against, by name, given its inputs.
References = Callable[
    [tuple[Any, ...], Mapping[str, Any]], Mapping[str, "Callable[[], object] | Measurement"]
]


class NnscaleCaller:
    """Runs a model once for real, returns its output, and judges the call by the test's budgets."""

    def __init__(
        self,
        budgets: Sequence[Budget],
        effort: Effort,
        announce: Announcer,
        references: References,
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
        from pytest_nnscale.workload import Workload

        workload = Workload(model, args, kwargs)
        try:
            output, observation = self._observe(workload)
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
                step = _observe_training(workload)
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
        max_ratio: float = 1.0,
        **kwargs: Any,
    ) -> Comparison:
        """Call two models on the same inputs, and fail the test if the new one takes longer.

        That is, surely more than `max_ratio` times as long as the old one. Both are timed in turns,
        and left as they were. Returns both outputs and the ratio.
        """
        self._refuse_late_calls()
        __tracebackhide__ = True
        from pytest_nnscale.comparing import compare

        with self._announce((), "both calls"):
            found, verdict = compare(
                new, old, args, kwargs, max_ratio=max_ratio, effort=self._effort
            )
        self.verdicts.append(verdict)
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

    def _observe(self, workload: Workload) -> tuple[Any, Observation]:
        __tracebackhide__ = True
        from pytest_nnscale.counting.counter import Counter
        from pytest_nnscale.observation import Observation
        from pytest_nnscale.observing import guard_of

        # Where it lives is asked first: a call may move it.
        subject, device = workload.subject, workload.device
        if workload.compiled:
            output = workload.call()
            if workload.modules and all(budget.metric.structural for budget in self._budgets):
                return output, Observation(subject, workload.modules, device=device)
            counter = _counted_again(workload)
        else:
            with Counter(roots=workload.modules) as counter:
                counter.inputs(workload.tensors)
                output = workload.call()
        return output, Observation(
            subject,
            counter.roots,
            counter.count(),
            repeat=workload.call,
            guard=guard_of(workload, counter),
            device=device,
            elsewhere=counter.parameters_elsewhere,
        )

    def _judge(self, budgets: Sequence[Budget], observation: Observation) -> None:
        from pytest_nnscale.judging import judge_observation

        with self._announce(budgets, observation.subject):
            self.verdicts += judge_observation(
                budgets, observation, self._effort, call=self.calls + 1
            )


def _counted_again(workload: Workload) -> Counter:
    """Count a compiled workload from its eager self, in the grad mode of the caller."""
    from pytest_nnscale.counting.counter import Counter
    from pytest_nnscale.preservation.keepsake import preserved

    counter = Counter(preserve=True, roots=workload.modules)
    inputs = (workload.args, workload.kwargs)
    with preserved(workload.modules, workload.tensors, inputs=inputs):
        try:
            with counter:
                counter.inputs(workload.tensors)
                workload.call()
        finally:
            counter.restore()
    return counter


def _observe_training(workload: Workload) -> Observation:
    from pytest_nnscale.errors import CannotMeasure
    from pytest_nnscale.observation import Observation
    from pytest_nnscale.observing import observe

    try:
        return observe(replace(workload, phase="training"), runs=True)
    except CannotMeasure as error:
        return Observation(
            workload.subject, workload.modules, reason=error.reason, remedy=error.remedy
        )
    except RuntimeError as error:
        return Observation(
            workload.subject,
            workload.modules,
            reason=f"the backward pass failed: {error}",
            remedy="call the model outside torch.no_grad and torch.inference_mode",
        )
