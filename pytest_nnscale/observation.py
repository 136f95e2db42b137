"""What a meter is given: what ran, what was counted of it, and how to run it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from pytest_nnscale.budget import Phase
    from pytest_nnscale.counting.counter import Count
    from pytest_nnscale.counting.stored import Inventory
    from pytest_nnscale.measurement import Measurement
    from pytest_nnscale.tree import ModuleTree
    from pytest_nnscale.workload import Workload

    # A callable is known by its identity; a test by its name, in a phase, on a device.
    ReferenceKey = int | tuple[str, Phase, str | None]
    References = Mapping[ReferenceKey, Workload | Measurement]


def device_of(devices: Sequence[str], otherwise: str = "cpu") -> str:
    """Return where most of a run was, by the devices of its operators; `otherwise` if it had none.

    That is the first one that is not the host.
    """
    others = [device for device in devices if device not in ("cpu", "meta")]
    return next(iter([*others, *(each for each in ("cpu", "meta") if each in devices)]), otherwise)


@dataclass(frozen=True, eq=False, repr=False)
class Observation:
    """One run of a workload, as seen.

    `count` or `repeat` is None where counting or repeating was not possible: `reason` and
    `remedy` then say why. `repeat` runs the workload once with nothing of ours active; `guard`
    stands around all repeats together and leaves the model as it was. `elsewhere` are parameters
    that were used and belong to none of the modules. `tree` is that of the modules, where known.
    `written` are tensors that were there before and were written in place. `time_notes` are said of
    every time; `empty` does what a repeat does beside the call, where that takes time.
    `references` are what the call may be held against: the calls of a budget's `reference`, with
    the same inputs, and what other tests took, by name, phase and device.
    """

    subject: str
    modules: tuple[torch.nn.Module, ...] = ()
    count: Count | None = None
    repeat: Callable[[], object] | None = None
    guard: Callable[[], AbstractContextManager[object]] = nullcontext
    phase: Phase = "inference"
    device: str = "cpu"
    reason: str = ""
    remedy: str = ""
    notes: tuple[str, ...] = ()
    elsewhere: tuple[torch.Tensor, ...] = ()
    tree: ModuleTree | None = None
    written: tuple[torch.Tensor, ...] = ()
    time_notes: tuple[str, ...] = ()
    empty: Callable[[], object] | None = None
    references: References = field(default_factory=dict)

    @cached_property
    def inventory(self) -> Inventory:
        """What the modules keep, taken once: when it is first asked for."""
        from pytest_nnscale.counting.stored import take_inventory

        return take_inventory(self.modules, self.tree)
