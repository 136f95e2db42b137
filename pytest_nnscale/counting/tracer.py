"""Counts what a workload would do on a device, from shapes alone: nothing of it is computed.

Counts what `counter` counts, along the path that the device takes. Does not compute contractions,
nor any operator on more than a few thousand numbers; does not copy or write the model's tensors.
Error sources: where values decide what runs (masks, `.item()`, routing), where TorchScript runs, and
where an operator has no shape function, there is no trace: `gave_up` says why.
Reference: torch._subclasses.fake_tensor, with which traces agree; it serves compilers and is slower.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pytest_nnscale.counting.counter import Counter
from pytest_nnscale.counting.driverless import DriverlessTracingMode
from pytest_nnscale.counting.leftovers import let_go
from pytest_nnscale.counting.modules import ModuleTracker
from pytest_nnscale.counting.specs import specs
from pytest_nnscale.counting.standins import StandIns
from pytest_nnscale.counting.stored import any_lazy
from pytest_nnscale.counting.traced import NeedsValues
from pytest_nnscale.counting.tracing import TracingMode
from pytest_nnscale.garbage import collected_later
from pytest_nnscale.naming import class_name
from pytest_nnscale.preservation.outline import Outline
from pytest_nnscale.tree import ModuleTree
from pytest_nnscale.workload import tensors_in

QUANTIZED = frozenset({torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4})


class Tracer(Counter):
    """A block of code that is counted on shapes alone, and leaves nothing behind; usable once.

    `device` is where the block takes itself to run: what is on meta has stand-ins there, and with
    `elsewhere` all that is on other devices, too. NeedsValues leaves the block where shapes are not enough; a model
    that catches it makes the trace void all the same, so ask `gave_up`. `alone` says that autograd
    is switched off around the block, not only its gradients: where the model `wants_gradients`
    after all, trace it again.
    """

    _mode: TracingMode
    _traced = True

    def __init__(
        self,
        *,
        roots: Iterable[nn.Module],
        device: torch.device,
        elsewhere: bool = False,
        alone: bool = False,
        memory: bool = True,
    ) -> None:
        self._device, self._alone = device, alone
        super().__init__(preserve=True, roots=roots, memory=memory)
        self._stand_ins = StandIns(device, self._liveness, everything=elsewhere)
        self._script: Any = None
        self._outline: Outline | None = None  # the last one
        self._given: tuple[Any, list[Tensor]] = ((), [])  # inputs that no outline has yet

    def _make_tracker(self, roots: Iterable[nn.Module]) -> ModuleTracker:
        return ModuleTracker(self._entered, roots)

    def _make_mode(self) -> TracingMode:
        driverless = self._device.type == "cuda" and not torch.cuda.is_available()
        kind = DriverlessTracingMode if driverless else TracingMode
        return kind(*self._mode_parts(), device=self._device, alone=self._alone)

    @property
    def gave_up(self) -> str:
        """Why there is no trace; an empty text where there is one."""
        return self._mode.gave_up

    @property
    def wants_gradients(self) -> bool:
        """Whether a trace without autograd may have failed for want of it."""
        return bool(self._mode.gave_up) and self._mode.wants_gradients

    def void(self, error: Exception) -> None:
        """Say that an error ended the block, whoever raised it."""
        if not isinstance(error, NeedsValues):
            self._mode.wants_gradients = True  # for which torch has many words
        text, *_ = str(error).strip().splitlines() or [""]
        self._mode.gave_up = self._mode.gave_up or f"{type(error).__name__}: {text}"

    def take(self, tree: Any) -> Any:
        """Take the roots and nested inputs into the trace, which runs; return the inputs for it.

        Tensors that are elsewhere have stand-ins in what is returned.
        """
        self._given = tree, [*tensors_in(tree)]
        for root in tuple(self._modules.tops):
            self._entered(root)
        if self._given[1]:
            self._outlined([], [])
        inputs = self._stand_ins.inside(tree)
        self.inputs(tensors_in(inputs))
        return inputs

    def __enter__(self) -> Tracer:
        self._script = torch._C._last_executed_optimized_graph()
        torch.clear_autocast_cache()  # a cast that was made before would not be seen
        super().__enter__()
        self._exits.enter_context(collected_later())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            super().__exit__(kind, error, traceback)
        finally:
            # Casts of weights that autocast has kept are traced tensors.
            torch.clear_autocast_cache()
        if torch._C._last_executed_optimized_graph() is not self._script:
            self._mode.gave_up = self._mode.gave_up or "TorchScript ran"
        self._script = None

    def restore(self) -> None:
        """Put back what the block changed; a trace of which a tensor was kept for later is none."""
        self._stand_ins.restore()
        super().restore()
        self._outline = None
        if let_go(self._liveness):
            self._mode.gave_up = (
                self._mode.gave_up or "a tensor was kept in a cache for later calls"
            )

    def _keep(self, tree: ModuleTree) -> None:
        if any(issubclass(kind, torch.jit.ScriptModule) for kind in {*map(type, tree.modules)}):
            scripted = next(
                each for each in tree.modules if isinstance(each, torch.jit.ScriptModule)
            )
            self._mode.give_up(f"{class_name(scripted)} runs in TorchScript")
        if any_lazy(tree.kept.tensors):
            lazy = next(row for tensor, row in zip(*tree.kept[:2], strict=True) if is_lazy(tensor))
            self._mode.give_up(f"{tree.types[lazy]} is lazy and has no shapes yet")
        kinds = self._outlined([*tree.modules, *tree.shells], tree.kept.tensors).kinds
        tree.attribute_types = kinds  # asked for again by the inventory
        if any(issubclass(kind, torch.ScriptObject) for kind in kinds):
            self._mode.give_up("weights are packed, and packed ones have no shape functions")

    def _outlined(self, parts: Sequence[nn.Module], tensors: Sequence[Tensor]) -> Outline:
        """Keep modules and tensors as they are, and inputs that were not kept yet."""
        inputs, more = self._given
        outline = Outline(parts, [*tensors, *more], inputs=inputs, versions=not self._alone)
        self._given = (), []
        self._keepsakes.append(outline)
        self._outline = outline
        return outline

    def _seen(self, tree: ModuleTree) -> None:
        """Take modules into the trace, before they run."""
        assert self._outline is not None
        places, kept = self._outline.places, tree.kept
        count, of = len(kept.tensors), places.geometry
        if not self._memory:
            pass
        elif places.all_dense:  # those that modules keep come first, then inputs
            owners = map(id, tree.owners)
            self._liveness.weights(places.storages[:count], of.storages[:count], owners)
        else:
            for tensor, owner in zip(kept.tensors, tree.owners, strict=True):
                self._liveness.existed(tensor, id(owner), "weights")
        if {*of.devices} - {self._device}:
            self._stand_ins.put_into(tree.modules)
        # What is not traceable is looked at when it is used; so are stand-ins.
        if places.all_dense and not any(map(torch.Tensor.is_neg, kept.tensors)):
            kinds = {*of.dtypes}
            if not (kinds & QUANTIZED or any(kind.is_complex for kind in kinds)):
                keys = zip(
                    of.sizes, of.strides, of.offsets, of.dtypes, of.devices, repeat(0), of.need_grad
                )
                self._mode.inside.update(zip(map(id, kept.tensors), specs(keys), strict=False))
