"""The dispatch mode: sees each operator, lets it run, and books what it did."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass_type

from pytest_nnscale.counting.casting import casting
from pytest_nnscale.counting.coverage import Work, classify, is_kernel
from pytest_nnscale.counting.flops import NoCount, flops_of, is_nested
from pytest_nnscale.counting.formulas import formula_for
from pytest_nnscale.counting.free import METADATA
from pytest_nnscale.counting.ledger import Ledger
from pytest_nnscale.counting.liveness import Kind, Liveness
from pytest_nnscale.counting.modules import NOWHERE, ModuleTracker
from pytest_nnscale.counting.parameters import ParametersRead
from pytest_nnscale.counting.steps import OptimizerSteps
from pytest_nnscale.counting.writes import Writes, tensors_in

_METADATA = frozenset(
    overload
    for name in METADATA
    for packet in [getattr(torch.ops.aten, name)]
    for overload in (getattr(packet, each) for each in packet.overloads())
) | {torch.ops.prim.layout.default}


OBSERVE = object()  # what `_otherwise` returns for an operator that is to be observed
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


def _nobody() -> None:
    """Take no notice."""


class CountingMode(TorchDispatchMode):
    """Books operators as they run."""

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing compiles while this counts, and saying so costs a call each time

    def __init__(
        self,
        ledger: Ledger,
        modules: ModuleTracker,
        liveness: Liveness,
        writes: Writes,
        parameters: ParametersRead,
        on_operator: Callable[[], None],
        steps: OptimizerSteps,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ledger, self._modules = ledger, modules
        self._liveness, self._writes = liveness, writes
        self._parameters, self._on_operator = parameters, on_operator
        self._steps = steps
        self._forward_peak: int | None = None
        self._seeds = 0
        self._peak_before_seeds = 0

    def end(self) -> None:
        """Let go of whom it told of operators."""
        self._on_operator = _nobody

    @property
    def forward_peak(self) -> int:
        """The peak of live bytes before the first operator of a backward pass."""
        return self._liveness.peak if self._forward_peak is None else self._forward_peak

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        __tracebackhide__ = True  # a model's error is shown in the model
        kwargs = kwargs or {}
        other = self._otherwise(func, types, args, kwargs)
        return self._observe(func, args, kwargs) if other is OBSERVE else other

    def _otherwise(
        self, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Answer what is no operator to observe, or is one made of others; else `OBSERVE`."""
        __tracebackhide__ = True
        # A wrapper takes itself apart: the operators on its parts are what runs.
        if func in _METADATA or any(is_wrapper(kind) for kind in types):
            return NotImplemented
        # A question, such as prim::device, or a word to the profiler.
        if getattr(func, "namespace", "") in ("prim", "profiler"):
            return func(*args, **kwargs)
        self._on_operator()
        if func is torch.ops.higher_order.cond:
            return self._cond(*args)
        if _is_composite(func) and formula_for(func) is None and not _any_nested(args, kwargs):
            return self._decomposed(func, args, kwargs)
        return OBSERVE

    def _decomposed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator as those that it is made of where autograd takes it apart."""
        __tracebackhide__ = True
        with casting(), self:
            # Not `decompose`: that prefers what Python has for compilers, which are other ones.
            return func._op_dk(_COMPOSITE, *args, **kwargs)

    def _cond(self, predicate: Any, if_true: Any, if_false: Any, operands: Any = ()) -> Any:
        __tracebackhide__ = True
        with self:
            return if_true(*operands) if bool(predicate) else if_false(*operands)

    def _observe(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        __tracebackhide__ = True
        node = torch._C._current_autograd_node()
        backward = node is not None and not self._modules.in_call
        self._find_backward(func, kwargs, backward=backward)
        inputs = [*tensors_in(args), *tensors_in(kwargs)]
        owner = self._modules.owner(node)
        if func is torch.ops.aten.lift_fresh.default:  # torch.tensor(...): made just now
            self._liveness.made(inputs[0], owner)
        self._writes.before(func, args, kwargs, self._liveness.is_inside)
        self._writes.leaves(inputs, self._liveness.is_inside)
        self._parameters.read(func, args, kwargs, inputs)
        for tensor in inputs:
            self._liveness.existed(tensor, NOWHERE)
        with casting():  # some kernels call operators that it knows
            out = func(*args, **kwargs)
        outputs = list(tensors_in(out))
        kind = self._kind(backward=backward)
        for tensor in outputs:
            self._liveness.made(tensor, owner, kind)
        self._liveness.settle()
        self._ledger.operators += 1
        for tensor in (*inputs, *outputs):
            self._ledger.devices.setdefault(str(tensor.device))
        self._ledger.work(
            owner,
            backward=backward,
            flops=self._flops(func, args, kwargs, out, owner, backward=backward),
            kernels=int(is_kernel(func)),
            operator=name_of(func),
        )
        return out

    def _flops(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        out: Any,
        owner: int,
        *,
        backward: bool,
    ) -> int:
        if classify(func) is Work.FREE:
            return 0
        try:
            return flops_of(func, args, kwargs, out)
        except NoCount as unknown:
            remedy = str(unknown)
        self._ledger.uncounted(
            name_of(func), owner, backward=backward, shapes=shapes_in(args, kwargs), remedy=remedy
        )
        return 0

    def _kind(self, *, backward: bool) -> Kind:
        """Say what the tensors are that an operator makes now."""
        if backward:
            return "gradients"
        stepping = self._steps.running and not self._modules.in_call
        return "optimizer" if stepping else "activations"

    def _find_backward(self, func: Any, kwargs: dict[str, Any], *, backward: bool) -> None:
        """Tell the end of the forward; the ones that `backward()` starts from come after it."""
        if backward:
            if self._forward_peak is None:
                peak = self._peak_before_seeds if self._seeds else self._liveness.peak
                self._forward_peak = peak
            self._ledger.backward = True
            if self._seeds:
                owner = NOWHERE
                self._ledger.work(owner, backward=False, flops=0, kernels=-self._seeds)
                self._ledger.work(owner, backward=True, flops=0, kernels=self._seeds)
            self._seeds = 0
        elif (
            func is torch.ops.aten.ones_like.default
            and kwargs.get("memory_format") is torch.preserve_format
        ):
            if not self._seeds:
                self._peak_before_seeds = self._liveness.peak
            self._seeds += 1
        else:
            self._seeds = 0


@functools.cache
def _is_composite(func: Any) -> bool:
    # Seen whole without autograd only.
    return isinstance(func, torch._ops.OpOverload) and bool(
        torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
    )


def _any_nested(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    # Composites are run whole then: nested tensors have kernels of their own for them.
    return any(is_nested(tensor) for tensor in tensors_in([args, kwargs]))


@functools.cache
def is_wrapper(kind: type) -> bool:
    """Tell whether a type of tensors takes itself apart into others."""
    ours = issubclass(kind, Tensor) and not issubclass(kind, FakeTensor | FunctionalTensor)
    return ours and is_traceable_wrapper_subclass_type(kind)


def name_of(func: Any) -> str:
    """Return the name of an operator: "aten::mm", with its overload where it has one."""
    return str(func.name()) if callable(getattr(func, "name", None)) else str(func)


def shapes_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Write the shapes of all tensors among some arguments: "2x3, scalar"."""
    return ", ".join(_shape(tensor) for tensor in tensors_in([args, kwargs]))


def _shape(tensor: Tensor) -> str:
    try:
        return "x".join(str(int(size)) for size in tensor.shape) or "scalar"
    except (RuntimeError, NotImplementedError, TypeError):
        return "?"
