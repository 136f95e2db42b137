"""Counts what is dispatched inside a block, run for real, without changing what it does.

Counts: every tensor operator of this thread and of the backward passes it starts, compiled code
from its eager self. Does not see: other threads and processes (that they got work is reported),
the kernels inside one operator, work done outside torch.
Error sources: an operator without a formula adds nothing to the FLOPs and is named.
Reference: torch.utils.flop_counter.FlopCounterMode.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.grad_mode import _force_original_view_tracking
from torch.utils._python_dispatch import _disable_current_modes

from pytest_nnscale.counting.dispatch import CountingMode
from pytest_nnscale.counting.eager import forced_eager
from pytest_nnscale.counting.ledger import Count as Count
from pytest_nnscale.counting.ledger import Ledger
from pytest_nnscale.counting.ledger import ModuleWork as ModuleWork
from pytest_nnscale.counting.ledger import Uncounted as Uncounted
from pytest_nnscale.counting.liveness import Liveness
from pytest_nnscale.counting.modules import NOWHERE, ModuleTracker, hidden, outermost
from pytest_nnscale.counting.parameters import ParametersRead
from pytest_nnscale.counting.processes import processes
from pytest_nnscale.counting.scripts import REMEDY, unseen_in, unseen_in_last_run
from pytest_nnscale.counting.steps import OptimizerSteps
from pytest_nnscale.counting.stored import constants, opened, packs_of
from pytest_nnscale.counting.threads import threads
from pytest_nnscale.counting.writes import Writes
from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.naming import class_name, is_shell
from pytest_nnscale.preservation.generators import Generators
from pytest_nnscale.preservation.keepsake import Keepsake
from pytest_nnscale.preservation.outline import Outline
from pytest_nnscale.tree import ModuleTree


class Counter:
    """A block of code that is counted while it runs; usable once.

    With `preserve`, `restore()` undoes what the block did to tensors that existed before and to
    the modules it called, from each module's first call on. `roots` are models known beforehand.
    Without `memory` it is not told who held how many bytes, which takes time to find out.
    A backward pass that runs while a module is being called is part of that call.
    """

    _traced = False

    def __init__(
        self, *, preserve: bool = False, roots: Iterable[nn.Module] = (), memory: bool = True
    ) -> None:
        self._preserve, self._memory = preserve, memory
        self._ledger = Ledger()
        self._liveness = Liveness()
        self._writes = Writes(preserve=preserve and not self._traced)
        self._modules = self._make_tracker(roots)
        self._parameters = ParametersRead()
        self._steps = OptimizerSteps()
        self._mode = self._make_mode()
        self._known = self._modules.known
        self._packs: dict[int, torch.ScriptObject] = {}
        self._keepsakes: list[Keepsake | Outline] = []
        self._generators: Generators | None = None
        self._threads: dict[str, None] = {}
        self._processes: dict[str, None] = {}
        self._unseen: dict[int, frozenset[str]] = {}
        self._exits = ExitStack()
        self._eager = False
        self._count: Count | None = None
        self._roots: tuple[nn.Module, ...] | None = None
        self._tree: ModuleTree | None = None  # of the first module called
        self._entered_once = False

    def _make_tracker(self, roots: Iterable[nn.Module]) -> ModuleTracker:
        return ModuleTracker(self._entered, roots, self._left)

    def _make_mode(self) -> CountingMode:
        return CountingMode(*self._mode_parts())

    def _mode_parts(self) -> tuple[Any, ...]:
        return (
            self._ledger,
            self._modules,
            self._liveness,
            self._writes,
            self._parameters,
            self._force_eager,
            self._steps,
        )

    @property
    def roots(self) -> tuple[nn.Module, ...]:
        """The outermost modules called inside, each once; then those registered in none of them."""
        if self._roots is not None:
            return self._roots
        return self._roots_beside(self._whole)

    @property
    def tree(self) -> ModuleTree | None:
        """The tree of `roots` as they were before the block, where it was seen."""
        tree = self._tree
        return tree if tree is not None and tree.roots == self.roots else None

    @property
    def parameters_elsewhere(self) -> tuple[Tensor, ...]:
        """The parameters that operators read and no module under `roots` has.

        Of one that is gone by now a meta tensor of its shape and dtype stands in.
        """
        return self._parameters.outside(self.roots)

    @property
    def written(self) -> tuple[Tensor, ...]:
        """The tensors that existed before and were written in place."""
        return self._writes.tensors

    def __enter__(self) -> Counter:
        if self._entered_once:
            raise RuntimeError("a Counter counts one block; make another one")
        self._entered_once = True
        if self._preserve:
            self._generators = Generators()
        with ExitStack() as entering:
            entering.callback(self._liveness.close)
            entering.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message=r"Using `torch\.compile\(module\)` when")
            entering.enter_context(threads.over(self._threads))
            entering.enter_context(processes.over(self._processes))
            entering.callback(self._modules.stop)
            self._modules.start()
            # A write to a view that needs a gradient is undone by the view itself, as it is where
            # tensors have no storage, so that a trace and a run dispatch the same operators.
            entering.enter_context(_force_original_view_tracking(True))
            entering.callback(self._steps.stop)
            self._steps.start()
            self._exits = entering
            self._force_eager()
            entering.enter_context(self._mode)
            self._exits = entering.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The mode is innermost but for a stance that was taken later, on the first import of
        # torch._dynamo: both are left in the order that they were entered in, reversed.
        self._exits.close()
        self._mode.end()
        self._threads.update(self._modules.elsewhere)
        tree = self._whole
        self._roots = self._roots_beside(tree)
        self._count = self._ledger.close(
            self._modules,
            tree,
            peak=self._liveness.peak if self._memory else None,
            forward_peak=self._mode.forward_peak if self._memory else None,
            at_peak=self._liveness.at_peak if self._memory else None,
            threads=tuple(self._threads),
            processes=tuple(self._processes),
            traced=self._traced,
        )

    @property
    def _whole(self) -> ModuleTree:
        """The tree of the outermost modules called."""
        roots = outermost(self._modules.tops)
        tree = self._tree
        # Modules are equal to none but themselves.
        if tree is not None and tree.roots == roots and tree.holds():
            return tree
        return ModuleTree(roots)

    def _roots_beside(self, tree: ModuleTree) -> tuple[nn.Module, ...]:
        found = hidden(self._modules, tree)
        return outermost([*self._modules.tops, *found]) if found else tree.roots

    def inputs(self, tensors: Iterable[Tensor]) -> None:
        """Book what is handed over, whether it is used or not."""
        with _disable_current_modes():
            for tensor in tensors:
                self._liveness.existed(tensor, NOWHERE, "inputs")

    def count(self) -> Count:
        """Return what was counted; CannotMeasure before the block has ended."""
        if self._count is None:
            raise CannotMeasure("the counted block has not ended")
        return self._count

    def executed_because(self, reason: str) -> None:
        """Add to the count why it was not taken from shapes alone."""
        self._count = self.count()._replace(why_executed=reason)

    def restore(self) -> None:
        """Put back what the block changed, as far as `preserve` noted it."""
        if not self._preserve:
            raise CannotMeasure("nothing was kept to restore", remedy="Counter(preserve=True)")
        self._writes.restore()
        while self._keepsakes:
            self._keepsakes.pop().restore()
        if self._generators is not None:
            self._generators.restore()
            self._generators = None

    def _force_eager(self) -> None:
        """Have compiled code run as it was written, and its caches left alone."""
        # Whoever has compiled something has imported this; importing it costs seconds.
        if not self._eager and "torch._dynamo" in sys.modules:
            self._eager = True
            self._exits.enter_context(forced_eager())

    def _entered(self, module: nn.Module) -> None:
        if id(module) in self._known:
            return
        self._force_eager()
        if is_shell(module):
            return
        tree = ModuleTree((module,))
        if self._tree is None:
            self._tree = tree
        self._known.update(zip(map(id, tree.modules), tree.modules, strict=True))
        with _disable_current_modes():
            if self._preserve:
                self._keep(tree)
            self._seen(tree)

    def _keep(self, tree: ModuleTree) -> None:
        """Keep what modules are, so that `restore` can put it back."""
        self._keepsakes.append(Keepsake(tree.roots))

    def _seen(self, tree: ModuleTree) -> None:
        """Book what modules hold, before they run."""
        for tensor, owner in zip(tree.kept.tensors, tree.owners, strict=True):
            self._liveness.existed(tensor, id(owner), "weights")
        for part in tree.modules:
            self._packed(part)

    def _packed(self, part: nn.Module) -> None:
        """Book the weights that a module keeps out of sight: quantised, or frozen into a graph."""
        try:
            for pack in packs_of(part):
                if id(pack) not in self._packs:
                    self._packs[id(pack)] = pack
                    nbytes = sum(tensor.nbytes for tensor in opened(pack))
                    self._liveness.keeps(nbytes, id(part))
            for tensor in constants(part):
                self._liveness.existed(tensor, id(part), "weights")
        except (AttributeError, RuntimeError, TypeError):
            self._ledger.unopened.append(class_name(part))

    def _left(self, module: nn.Module) -> None:
        """Book what a scripted module, run in C++ with all below it, did past the dispatcher."""
        if not isinstance(module, torch.jit.ScriptModule):
            return
        try:
            if id(module) not in self._unseen:
                self._unseen[id(module)] = unseen_in(module)
            unseen = self._unseen[id(module)] | unseen_in_last_run()
        except (AttributeError, RuntimeError):
            unseen = frozenset({"TorchScript"})  # its graph cannot be read
        for kind in sorted(unseen):
            self._ledger.uncounted(
                kind, id(module), backward=False, shapes="", remedy=REMEDY, unseen=True
            )
