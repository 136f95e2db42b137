"""The pipeline without pytest: `profile` a model, `count` a block of code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_nnscale.budget import Phase
from pytest_nnscale.errors import BadOption, BadWorkload, CannotMeasure
from pytest_nnscale.measurement import Measurement, Metric
from pytest_nnscale.meters.table import measure
from pytest_nnscale.naming import joint_name
from pytest_nnscale.observation import Observation
from pytest_nnscale.workload import Workload, gradients_for

if TYPE_CHECKING:
    import torch

    from pytest_nnscale.counting.counter import Count, Counter

EXACT = tuple(metric for metric in Metric if not metric.sampled)
STRUCTURAL = tuple(metric for metric in Metric if metric.structural)


@dataclass(frozen=True, slots=True)
class ModuleRow:
    """What one module has and does: by itself (`own_`), and with all below it (`total_`).

    None where it was not measured.
    """

    path: str
    type: str
    own_params: int | None
    total_params: int | None
    own_flops: int | None
    total_flops: int | None
    own_memory_bytes: int | None
    total_memory_bytes: int | None


@dataclass(frozen=True)
class Profile:
    """The measured numbers of one workload; its text is a table.

    Exact numbers are ints, and None where they were not measured: without inputs a model has only
    its params and size. `flops` is a lower bound while `uncounted` names an operator.
    """

    subject: str
    phase: Phase
    measurements: tuple[Measurement, ...]
    uncounted: tuple[str, ...]
    modules: tuple[ModuleRow, ...]
    method: str

    def measurement(self, metric: Metric | str) -> Measurement:
        """Return one measurement with its interval; KeyError where it was not asked for."""
        wanted = Metric(metric)
        for measurement in self.measurements:
            if measurement.metric is wanted:
                return measurement
        raise KeyError(wanted.value)

    def _whole(self, metric: Metric) -> int | None:
        try:
            value = self.measurement(metric).value
        except KeyError:
            return None
        return None if value is None else int(value)

    def _sampled(self, metric: Metric) -> Measurement | None:
        try:
            return self.measurement(metric)
        except KeyError:
            return None

    @property
    def params(self) -> int | None:
        """Parameters, shared ones once."""
        return self._whole(Metric.PARAMS)

    @property
    def flops(self) -> int | None:
        """Contraction work in FLOP; 1 multiply-accumulate = 2 FLOP."""
        return self._whole(Metric.FLOPS)

    @property
    def macs(self) -> int | None:
        """Contraction work in multiply-accumulates: half of the FLOPs."""
        return self._whole(Metric.MACS)

    @property
    def size_bytes(self) -> int | None:
        """Bytes of parameters and buffers as stored."""
        return self._whole(Metric.SIZE)

    @property
    def memory_bytes(self) -> int | None:
        """Peak of live tensor bytes, weights and inputs included."""
        return self._whole(Metric.MEMORY)

    @property
    def kernels(self) -> int | None:
        """Operators dispatched that compute something."""
        return self._whole(Metric.KERNELS)

    @property
    def latency_s(self) -> Measurement | None:
        """One call in seconds, the median with its interval; None unless asked for."""
        return self._sampled(Metric.LATENCY)

    @property
    def energy_j(self) -> Measurement | None:
        """One call in joules with its interval; None unless asked for."""
        return self._sampled(Metric.ENERGY)

    def to_json(self) -> str:
        """Return everything but raw samples as JSON text; unknown is null, never zero."""
        return json.dumps(
            {
                "subject": self.subject,
                "phase": self.phase,
                "method": self.method,
                "measurements": {
                    m.metric.value: m.without_details().to_dict() for m in self.measurements
                },
                "uncounted": list(self.uncounted),
                "modules": [asdict(row) for row in self.modules],
            },
            allow_nan=False,
        )

    def __str__(self) -> str:
        from pytest_nnscale.report.table import profile_table

        return profile_table(self)


def profile(
    model: Callable[..., Any],
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    phase: Phase = "inference",
    device: str | torch.device | None = None,
    metrics: Iterable[str | Metric] | None = None,
) -> Profile:
    """Measure what a call of a model costs, and leave the model as it was.

    Without `args` and `kwargs` only params and size are measured, and nothing runs; a call without
    inputs is `args=()`. `phase="training"` adds the backward pass of the summed outputs.
    `metrics` names what to measure ("params", "flops", "macs", "size", "memory", "kernels",
    "latency", "energy"); the exact ones are the default. `device` states where the model has to
    be: BadWorkload is raised where it is elsewhere. Errors of the model itself pass through.
    """
    workload = workload_from(model, args, kwargs, phase)
    runs = args is not None or kwargs is not None
    wanted = _metrics(metrics, runs=runs)
    structural = workload.modules and all(metric.structural for metric in wanted)
    observation = observe(workload, runs=runs and not structural)
    if device is not None and not same_device(str(device), observation.device):
        raise BadWorkload(
            f"device={str(device)!r}, but the model and its inputs are on {observation.device!r}"
        )
    return profile_of(observation, wanted)


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


def observe(workload: Workload, *, runs: bool) -> Observation:
    """Run a workload once so that nothing of it stays, and return what was seen; or do not run it."""
    if not runs:
        return Observation(
            subject_of(workload),
            workload.modules,
            device=device_of(workload),
            reason="nothing was run",
            remedy="hand over inputs: profile(model, args=(x,))",
        )
    device = device_of(workload)
    counter = count_apart(workload)
    return Observation(
        subject_of(workload),
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


def profile_of(observation: Observation, metrics: Iterable[Metric]) -> Profile:
    """Measure some metrics of an observation and join them with its module rows."""
    found = tuple(measure(m, observation, phase=observation.phase) for m in metrics)
    return assemble(observation.subject, observation.phase, found, observation.count)


def subject_of(workload: Workload) -> str:
    """Name a workload by its model's class or its function's name."""
    if workload.modules:
        return joint_name(workload.modules)
    return getattr(workload.model, "__name__", type(workload.model).__name__)


def device_of(workload: Workload) -> str:
    """Name the device of a workload: where its model lives, else its inputs, else the CPU."""
    import itertools

    kept = itertools.chain.from_iterable(
        itertools.chain(module.parameters(), module.buffers()) for module in workload.modules
    )
    for tensor in itertools.chain(kept, workload.tensors):
        return str(tensor.device)
    return "cpu"


def same_device(asked: str, found: str) -> bool:
    """Tell whether a device was meant: "cuda" means every GPU, "cuda:1" one."""
    return asked == found or (":" not in asked and found.partition(":")[0] == asked)


def _metrics(names: Iterable[str | Metric] | None, *, runs: bool) -> tuple[Metric, ...]:
    if names is None:
        return EXACT if runs else STRUCTURAL
    names = names.replace(",", " ").split() if isinstance(names, str) else [*names]
    names = [name.value if isinstance(name, Metric) else name for name in names]
    valid = [metric.value for metric in Metric]
    unknown = [name for name in names if name not in valid]
    if unknown:
        raise BadOption(f"unknown metric {unknown[0]!r}; valid are {', '.join(valid)}")
    return tuple(Metric(name) for name in names)


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


@dataclass
class Counting:
    """The handle of a `count()` block; its profile is there once the block has ended."""

    _profile: Profile | None = None
    _raised: bool = False

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
    counted = replace(counter.count(), raised=())
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


def assemble(
    subject: str, phase: Phase, found: tuple[Measurement, ...], counted: Count | None
) -> Profile:
    """Join measurements and the module rows of a count into a profile."""
    shares = {m.metric: {s.path: s for s in m.shares} for m in found}
    params = shares.get(Metric.PARAMS, {})
    work = {row.path: row for row in counted.modules} if counted else {}
    # A module without a share has none of what was measured; what was not measured is unknown.
    without = 0 if params else None
    idle = 0 if counted else None
    rows = []
    for path in sorted({*params, *work}, key=lambda path: (path.split("."), path)):
        held, done = params.get(path), work.get(path)
        rows.append(
            ModuleRow(
                path,
                held.type if held else done.type if done else "",
                *((int(held.own), int(held.total)) if held else (without, without)),
                *((done.own_flops, done.total_flops) if done else (idle, idle)),
                *((done.own_memory, done.total_memory) if done else (idle, idle)),
            )
        )
    uncounted = tuple(dict.fromkeys(u.operator for u in counted.uncounted)) if counted else ()
    return Profile(
        subject, phase, found, uncounted, tuple(rows), "executed" if counted else "state"
    )
