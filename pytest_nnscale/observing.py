"""From a workload to what was seen of it: run, counted, and put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.observation import Observation, device_of
from pytest_nnscale.workload import Workload, gradients_for, homes_of, same_device

if TYPE_CHECKING:
    import torch

    from pytest_nnscale.counting.counter import Counter
    from pytest_nnscale.counting.tracer import Tracer


def observe(
    workload: Workload, *, runs: bool, device: str | None = None, memory: bool = True
) -> Observation:
    """See what a workload does so that nothing of it stays; or do not run it.

    `device` is where it takes itself to run, on shapes alone; without, where it lives. Without
    `memory` nobody asks for that.
    """
    if not runs:
        return Observation(
            workload.subject,
            workload.modules,
            device=workload.device,
            reason="nothing was run",
            remedy="hand over inputs: profile(model, args=(x,))",
        )
    lives = workload.device  # asked first: a run may move it
    counter = count_apart(workload, device, memory=memory)
    count = counter.count()
    if device is None or same_device(device, lives):
        device = ran_on(counter, lives)
    return Observation(
        workload.subject,
        counter.roots,
        count if workload.phase == "training" else count.as_one_call(),
        repeat=workload.call if workload.phase == "inference" else workload.run,
        guard=guard_of(workload, counter, mode=partial(gradients_for, workload.phase)),
        phase=workload.phase,
        device=device,
        elsewhere=counter.parameters_elsewhere,
        tree=counter.tree if count.traced else None,
        written=counter.written,
        notes=(f"run for real: {count.why_executed}",) if count.why_executed else (),
    )


def ran_on(counter: Counter, lives: str) -> str:
    """Return the device on which most of a run was; `lives` is said of one without any operator.

    What is on meta is traced as if it were on the CPU, and would be timed on meta. So would a model
    there whose inputs are moved from the CPU.
    """
    count = counter.count()
    traced_for_another = count.traced and lives.startswith("meta")
    if traced_for_another or homes_of(counter.roots) == {"meta"}:
        return "meta"
    return device_of(count.devices, lives)


def guard_of(
    workload: Workload,
    counter: Counter,
    *,
    mode: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Callable[[], AbstractContextManager[None]]:
    """Return what puts back all that a run of a workload was seen to touch.

    `mode` is entered once around all repeats: in each of them it would be timed with the call.
    """
    from pytest_nnscale.preservation.keepsake import preserved

    touched = (*workload.tensors, *counter.written)

    @contextmanager
    def guard() -> Iterator[None]:
        inputs = (workload.args, workload.kwargs)
        with preserved(counter.roots, touched, inputs=inputs), mode():
            yield

    return guard


def count_apart(workload: Workload, device: str | None = None, *, memory: bool = True) -> Counter:
    """Count a workload on shapes alone; where these are not enough, a run that is undone afterwards.

    Errors of the model itself are those of the run. CannotMeasure is raised where the workload
    would have to be run and is not on `device`.
    """
    tracer = _trace(workload, device, memory=memory)
    if not tracer.gave_up:
        return tracer
    if device is not None and not same_device(device, workload.device):
        raise CannotMeasure(
            f"{workload.subject} is on {workload.device}, not on {device}, and shapes are not "
            f"enough: {tracer.gave_up}",
            remedy=f"move the model and its inputs to {device}",
        )
    on_meta = CannotMeasure(
        f"{workload.subject} is on meta, and shapes are not enough: {tracer.gave_up}",
        remedy="hand over a model with weights, and inputs with values",
    )
    try:
        counter = _execute(workload, memory=memory)
    except (NotImplementedError, RuntimeError) as error:
        if workload.device.startswith("meta") and "meta" in str(error):
            raise on_meta from error
        raise
    if workload.device.startswith("meta"):  # it ran, by a path that no device takes
        raise on_meta
    counter.executed_because(tracer.gave_up)
    return counter


def _trace(workload: Workload, device: str | None = None, *, memory: bool = True) -> Tracer:
    import torch

    home = torch.device(workload.device)
    elsewhere = device is not None and not same_device(device, workload.device)
    target = torch.device(device) if device is not None and elsewhere else home
    if target.type == "meta":
        target = torch.device("cpu")
    elif target.type != "cpu" and target.index is None:
        target = torch.device(target.type, 0)
    trace = partial(_traced, workload, target, elsewhere=elsewhere, memory=memory)
    driverless = target.type == "cuda" and not torch.cuda.is_available()
    if driverless and workload.phase == "training":
        raise CannotMeasure(
            f"a training step on {target.type} cannot be traced on a machine without its driver",
            remedy="trace it for the CPU, or run it where a GPU is",
        )
    if driverless:
        # For a gradient autograd would ask the driver for a stream, and end the process.
        return trace(mode=torch.inference_mode())
    if workload.phase == "inference":
        tracer = trace(mode=_without_autograd(), alone=True)
        if not tracer.wants_gradients:
            return tracer
    return trace(mode=gradients_for(workload.phase))


@contextmanager
def _without_autograd() -> Iterator[None]:
    """Switch autograd off, so that torch hands over operators before it takes them apart.

    Other than inference mode it makes no tensors that refuse what follows, such as a view.
    """
    import torch

    with torch.no_grad(), torch._C._AutoDispatchBelowADInplaceOrView():
        yield


def _traced(
    workload: Workload,
    device: torch.device,
    *,
    elsewhere: bool,
    memory: bool,
    mode: AbstractContextManager[Any],
    alone: bool = False,
) -> Tracer:
    """Trace a workload in a grad mode, and put back what that did."""
    from pytest_nnscale.counting.tracer import Tracer

    tracer = Tracer(
        roots=workload.modules, device=device, elsewhere=elsewhere, alone=alone, memory=memory
    )
    try:
        with tracer, mode:
            args, kwargs = tracer.take((workload.args, dict(workload.kwargs)))
            replace(workload, args=args, kwargs=kwargs).run()
    except Exception as error:
        # What torch or the model makes of a tensor without values may be any error. An error of
        # the model itself comes again when it is run, and is shown then.
        tracer.void(error)
    finally:
        tracer.restore()
    return tracer


def _execute(workload: Workload, *, memory: bool = True) -> Counter:
    from pytest_nnscale.counting.counter import Counter
    from pytest_nnscale.preservation.keepsake import preserved

    counter = Counter(preserve=True, roots=workload.modules, memory=memory)
    inputs = (workload.args, workload.kwargs)
    with preserved(workload.modules, workload.tensors, inputs=inputs):
        try:
            with counter, gradients_for(workload.phase):
                counter.inputs(workload.tensors)
                workload.run()
        finally:
            counter.restore()
    return counter
