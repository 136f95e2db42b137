"""From a workload to what was seen of it: run, counted, and put back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.observation import Observation
from pytest_nnscale.workload import Workload, gradients_for

if TYPE_CHECKING:
    from pytest_nnscale.counting.counter import Counter
    from pytest_nnscale.counting.tracer import Tracer


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
    """Count a workload on shapes alone; where these are not enough, a run that is undone afterwards.

    Errors of the model itself are those of the run.
    """
    tracer = _trace(workload)
    if not tracer.gave_up:
        return tracer
    try:
        counter = _execute(workload)
    except (NotImplementedError, RuntimeError) as error:
        if workload.device.startswith("meta") and "meta" in str(error):
            raise CannotMeasure(
                f"{workload.subject} is on meta, and shapes are not enough: {tracer.gave_up}",
                remedy="hand over a model with weights, and inputs with values",
            ) from error
        raise
    counter.executed_because(tracer.gave_up)
    return counter


def _trace(workload: Workload) -> Tracer:
    import torch

    from pytest_nnscale.counting.tracer import Tracer

    device = torch.device(workload.device)
    if device.type == "meta":
        device = torch.device("cpu")
    tracer = Tracer(roots=workload.modules, device=device)
    try:
        with tracer, gradients_for(workload.phase):
            args, kwargs = tracer.take((workload.args, dict(workload.kwargs)))
            replace(workload, args=args, kwargs=kwargs).run()
    except Exception as error:
        # What torch or the model makes of a tensor without values may be any error. An error of
        # the model itself comes again when it is run, and is shown then.
        tracer.void(error)
    finally:
        tracer.restore()
    return tracer


def _execute(workload: Workload) -> Counter:
    from pytest_nnscale.counting.counter import Counter
    from pytest_nnscale.preservation.keepsake import preserved

    counter = Counter(preserve=True, roots=workload.modules)
    inputs = (workload.args, workload.kwargs)
    with preserved(workload.modules, workload.tensors, inputs=inputs):
        try:
            with counter, gradients_for(workload.phase):
                counter.inputs(workload.tensors)
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
