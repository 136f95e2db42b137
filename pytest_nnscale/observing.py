"""From a workload to what was seen of it: run, counted, and put back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pytest_nnscale.observation import Observation
from pytest_nnscale.workload import Workload, gradients_for

if TYPE_CHECKING:
    from pytest_nnscale.counting.counter import Counter


def observe(workload: Workload, *, runs: bool) -> Observation:
    """Run a workload once so that nothing of it stays, and return what was seen; or do not run it."""
    if not runs:
        return Observation(
            workload.subject,
            workload.modules,
            device=workload.device,
            reason="nothing was run",
            remedy="hand over inputs: profile(model, args=(x,))",
        )
    device = workload.device
    counter = count_apart(workload)
    return Observation(
        workload.subject,
        counter.roots,
        counter.count() if workload.phase == "training" else counter.count().as_one_call(),
        repeat=repeat_of(workload),
        guard=guard_of(workload, counter),
        phase=workload.phase,
        device=device,
        elsewhere=counter.parameters_elsewhere,
    )


def guard_of(workload: Workload, counter: Counter) -> Callable[[], AbstractContextManager[None]]:
    """Return what puts back all that a run of a workload was seen to touch."""
    from pytest_nnscale.preservation.keepsake import preserved

    touched = (*workload.tensors, *counter.written)
    return lambda: preserved(counter.roots, touched, inputs=(workload.args, workload.kwargs))


def count_apart(workload: Workload) -> Counter:
    """Count a run whose effects on the model and its inputs are undone afterwards."""
    from pytest_nnscale.counting.counter import Counter
    from pytest_nnscale.preservation.keepsake import preserved

    counter = Counter(preserve=True, roots=workload.modules)
    inputs = (workload.args, workload.kwargs)
    with preserved(workload.modules, workload.tensors, inputs=inputs):
        try:
            with counter, gradients_for(workload.phase):
                workload.run()
        finally:
            counter.restore()
    return counter


def repeat_of(workload: Workload) -> Callable[[], None]:
    """Return a function that runs the workload once more, in the grad mode of its phase."""

    def repeat() -> None:
        with gradients_for(workload.phase):
            workload.run()

    return repeat
