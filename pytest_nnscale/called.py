"""What a call through the fixture did: seen in that very run, which is the test's own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.observation import Observation

if TYPE_CHECKING:
    from pytest_nnscale.counting.counter import Counter
    from pytest_nnscale.workload import Workload


def observe_call(workload: Workload, *, only_structure: bool = False) -> tuple[Any, Observation]:
    """Call a workload once for real; return its output, and what was seen of it.

    A compiled model is called as it is, and counted from its eager self afterwards, unless
    `only_structure` of it is asked for.
    """
    __tracebackhide__ = True  # a model's error is shown at the line that called it
    from pytest_nnscale.counting.counter import Counter

    # Where it lives is asked first: a call may move it.
    lives = workload.device
    if workload.compiled:
        output = workload.call()
        if workload.modules and only_structure:
            return output, Observation(workload.subject, workload.modules, device=lives)
        counter = _counted_again(workload)
    else:
        with Counter(roots=workload.modules) as counter:
            counter.inputs(workload.tensors)
            output = workload.call()
    return output, _seen(workload, counter, lives)


def observe_apart(workload: Workload) -> Observation:
    """Call a workload once, in the grad mode of the caller, so that nothing of it stays."""
    lives = workload.device
    return _seen(workload, _counted_again(workload), lives)


def observe_step(workload: Workload) -> Observation:
    """See a training step of a workload, which nobody but us runs."""
    from pytest_nnscale.observing import observe

    try:
        return observe(replace(workload, phase="training"), runs=True)
    except CannotMeasure as error:
        reason, remedy = error.reason, error.remedy
    except RuntimeError as error:
        reason = f"the backward pass failed: {error}"
        remedy = "call the model outside torch.no_grad and torch.inference_mode"
    return Observation(workload.subject, workload.modules, reason=reason, remedy=remedy)


def _seen(workload: Workload, counter: Counter, lives: str) -> Observation:
    from pytest_nnscale.observing import guard_of, ran_on

    return Observation(
        workload.subject,
        counter.roots,
        counter.count(),
        repeat=workload.call,
        guard=guard_of(workload, counter),
        device=ran_on(counter, lives),
        elsewhere=counter.parameters_elsewhere,
        written=counter.written,
    )


def _counted_again(workload: Workload) -> Counter:
    """Count a workload from its eager self, in the grad mode of the caller, and undo the run."""
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
