"""The pipeline without pytest: `profile` a model, `count` a block of code."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_nnscale.errors import BadOption, BadWorkload, CannotMeasure, shown
from pytest_nnscale.garbage import collected_later
from pytest_nnscale.measurement import Metric
from pytest_nnscale.observation import Observation
from pytest_nnscale.observing import observe
from pytest_nnscale.options import Options, resolve_sampling
from pytest_nnscale.profiles import Profile, profile_of
from pytest_nnscale.workload import Workload, same_device

if TYPE_CHECKING:
    import torch

    from pytest_nnscale.budget import Phase

EXACT = tuple(metric for metric in Metric if not metric.sampled)
STRUCTURAL = tuple(metric for metric in Metric if metric.structural)


def profile(
    model: Callable[..., Any],
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    phase: Phase = "inference",
    device: str | torch.device | None = None,
    metrics: Iterable[str | Metric] | None = None,
    loss: Callable[[Any], torch.Tensor] | None = None,
    optimizer: Callable[[Iterator[torch.nn.Parameter]], torch.optim.Optimizer] | None = None,
    options: Mapping[str, object] | None = None,
) -> Profile:
    """Measure what a call of a model costs, and leave the model as it was.

    Without `args` and `kwargs` only params and size are measured, and nothing runs; a call without
    inputs is `args=()`. `phase="training"` adds the backward pass of the summed outputs.
    `metrics` names what to measure ("params", "flops", "macs", "size", "memory", "kernels",
    "latency", "energy", "efficiency"); the exact ones are the default. They are counted on shapes
    alone, and by a run only where values decide what happens. `device` is where the model takes itself to run, with
    the kernels that it would have there; without, it is where the model lives, and the CPU for one
    on meta. BadWorkload is raised where time or energy is asked for and the model is elsewhere. In training, `loss` takes the output and
    returns what is minimised in place of the sum, and `optimizer` takes the parameters and returns
    an optimiser whose first step is part of the work, such as `torch.optim.AdamW`. `options` say how
    what is sampled is: the plugin's, by their ini keys, such as `{"nnscale_max_time": 20}`. Errors of
    the model itself pass through.
    """
    settings = resolve_sampling(options or {})
    workload = workload_from(model, args, kwargs, phase)
    if (loss or optimizer) is not None:
        workload = _training(workload, loss, optimizer)
    runs = args is not None or kwargs is not None
    wanted = _metrics(metrics, runs=runs)
    structural = workload.modules and all(metric.structural for metric in wanted)
    sampled = any(metric.sampled for metric in wanted)
    target = None if device is None else _device(device)
    if sampled and target is not None and not same_device(target, workload.device):
        raise BadWorkload(
            f"device={str(device)!r}, but the model and its inputs are on {workload.device!r}, where "
            "time and energy would be measured"
        )
    with nullcontext() if sampled else collected_later():
        # In a frame of its own, so that all is gone by the time that garbage is looked for.
        return _profile_of(workload, wanted, settings, runs=runs and not structural, device=target)


def _profile_of(
    workload: Workload,
    metrics: Collection[Metric],
    settings: Options,
    *,
    runs: bool,
    device: str | None,
) -> Profile:
    observation = observe(workload, runs=runs, device=device, memory=Metric.MEMORY in metrics)
    if not any(metric.sampled for metric in metrics):
        return profile_of(observation, metrics)
    from pytest_nnscale.meters.effort import asked
    from pytest_nnscale.timing.quiet import Quiet

    quiet = Quiet(settings.max_wait)
    profile = profile_of(observation, metrics, asked(settings, quiet.measuring))
    return _noted(profile, quiet.take_notes())


def _noted(profile: Profile, notes: tuple[str, ...]) -> Profile:
    """Add to what was sampled what there is to say of the wait for a quiet machine."""
    measurements = (
        replace(m, notes=(*m.notes, *notes)) if m.metric.sampled else m
        for m in profile.measurements
    )
    return replace(profile, measurements=tuple(measurements))


def workload_from(
    model: Callable[..., Any],
    args: tuple[Any, ...] | None,
    kwargs: Mapping[str, Any] | None,
    phase: Phase,
) -> Workload:
    """Check what `profile` was given; BadOption and BadWorkload say what is wrong with it."""
    if phase not in ("inference", "training"):
        raise BadOption(f"phase is 'inference' or 'training', not {phase!r}")
    if args is not None and not isinstance(args, tuple | list):
        raise BadWorkload(f"args is a tuple of inputs, not {type(args).__name__}: write (x,)")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise BadWorkload(f"kwargs is a dict of inputs by name, not {type(kwargs).__name__}")
    workload = Workload(model, tuple(args or ()), dict(kwargs or {}), phase)
    workload.check_devices()
    return workload


def _training(workload: Workload, loss: Any, optimizer: Any) -> Workload:
    if workload.phase != "training":
        raise BadOption("loss= and optimizer= belong to phase='training'")
    for name, given in (("loss", loss), ("optimizer", optimizer)):
        if given is not None and not callable(given):
            raise BadOption(f"{name}= is a function, not {shown(given)}")
    if optimizer is not None and not workload.modules:
        raise BadWorkload("optimizer= needs the parameters of a model: hand over the model itself")
    return replace(workload, loss=loss, optimizer=optimizer)


def _device(given: str | torch.device) -> str:
    import torch

    try:
        found = torch.device(given)
    except (RuntimeError, TypeError):
        raise BadOption(
            f"device={shown(given)} is no device of torch, such as 'cpu' or 'cuda:1'"
        ) from None
    if found.type == "meta":
        raise BadOption(
            "device= is where the model takes itself to run, and on 'meta' nothing runs"
        )
    return str(found)


def _metrics(names: Iterable[str | Metric] | None, *, runs: bool) -> tuple[Metric, ...]:
    if names is None:
        return EXACT if runs else STRUCTURAL
    names = names.replace(",", " ").split() if isinstance(names, str) else [*names]
    names = [name.value if isinstance(name, Metric) else name for name in names]
    # A ratio is one to something else, which a profile does not have.
    valid = [metric.value for metric in Metric if metric is not Metric.RATIO]
    unknown = [name for name in names if name not in valid]
    if unknown:
        raise BadOption(f"unknown metric {unknown[0]!r}; valid are {', '.join(valid)}")
    return tuple(Metric(name) for name in names)


class Counting:
    """The handle of a `count()` block; its profile is there once the block has ended."""

    def __init__(self) -> None:
        self._profile: Profile | None = None
        self._raised = False

    @property
    def profile(self) -> Profile:
        """The profile of the block; CannotMeasure while it still runs or when it raised."""
        if self._raised:
            raise CannotMeasure("the counted block raised, so that it has no profile")
        if self._profile is None:
            raise CannotMeasure(
                "the counted block has not ended", remedy="read .profile after the with block"
            )
        return self._profile


@contextmanager
def count() -> Iterator[Counting]:
    """Count whatever is dispatched inside the block, run for real.

    Stands where people use torch's FlopCounterMode today. The phase is "training" where a backward
    pass ran. The block's own errors pass through, and then there is no profile.
    """
    from pytest_nnscale.counting.counter import Counter

    handle = Counting()
    counter = Counter()
    try:
        with counter:
            yield handle
    except BaseException:
        handle._raised = True
        raise
    # What a block did is what it did, also where a model in it raised and the block went on.
    counted = counter.count()._replace(raised=())
    phase: Phase = "training" if counted.backward else "inference"
    observation = Observation(
        "counted block",
        counter.roots,
        counted,
        phase=phase,
        elsewhere=counter.parameters_elsewhere,
    )
    wanted = EXACT if counter.roots else tuple(m for m in EXACT if not m.structural)
    handle._profile = profile_of(observation, wanted)
