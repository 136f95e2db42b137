"""What is run: a model or callable with its inputs, in one phase."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_nnscale.errors import BadWorkload, CannotMeasure
from pytest_nnscale.naming import joint_name, parts_of, without_shell

if TYPE_CHECKING:
    import torch

    from pytest_nnscale.budget import Phase


@dataclass(frozen=True)
class Workload:
    """A model or callable, what it is called with, and whether a backward pass follows.

    `loss` makes one number of the output, `optimizer` an optimiser of the model's parameters.
    """

    model: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    phase: Phase = "inference"
    loss: Callable[[Any], torch.Tensor] | None = None
    optimizer: Callable[[Iterator[torch.nn.Parameter]], torch.optim.Optimizer] | None = None

    def __post_init__(self) -> None:
        if not callable(self.model):
            raise BadWorkload(
                f"a workload is a model or a function, not {type(self.model).__name__}; "
                "call it as nnscale(model, *inputs)"
            )

    @property
    def subject(self) -> str:
        """Its name: the model's class, or the function's."""
        if self.modules:
            return joint_name(self.modules)
        return getattr(self.model, "__name__", type(self.model).__name__)

    @property
    def device(self) -> str:
        """Where its model lives, else its inputs, else the CPU; its operators may run elsewhere."""
        kept = itertools.chain.from_iterable(map(_kept, self.modules))
        for tensor in itertools.chain(kept, self.tensors):
            return str(tensor.device)
        return "cpu"

    def check_devices(self) -> None:
        """Raise BadWorkload for an input on meta and a model elsewhere: some operators take that.

        They compute nothing. All other mixtures are torch's to refuse, or the model's to mend.
        """
        if all(tensor.device.type != "meta" for tensor in self.tensors):
            return
        homes = homes_of(self.modules)
        if homes and "meta" not in homes:
            raise BadWorkload(
                f"an input is on meta and the model on {' and '.join(sorted(homes))}: "
                "move one to the other's device"
            )

    def call(self) -> Any:
        """Call the model once and return its output."""
        __tracebackhide__ = True
        return self.model(*self.args, **self.kwargs)

    def run(self) -> Any:
        """Do the work of the phase once: the call, and in training a whole step.

        A step is the call, the loss, the backward pass, and the first step of a new optimiser.
        Without a loss it is the sum of all outputs that need a gradient; without an optimiser
        there is no step of one. An optimiser that evaluates the model itself, as LBFGS does, gets
        the call, the loss and the backward pass as its closure. Raises CannotMeasure where nothing
        needs a gradient.
        """
        if self.phase == "inference":
            return self.call()
        if self.optimizer is None:
            return self._backward()[0]
        optimizer = self.optimizer(p for model in self.modules for p in model.parameters())

        def evaluate() -> Any:
            optimizer.zero_grad()
            return self._backward()

        closure = inspect.signature(optimizer.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            return optimizer.step(lambda: sum(loss.detach().sum() for loss in evaluate()[1]))
        output, _ = evaluate()
        optimizer.step()
        return output

    def _backward(self) -> tuple[Any, list[torch.Tensor]]:
        """Call the model, take the gradient of the loss; return the output and what was summed."""
        import torch

        with torch.enable_grad():
            output = self.call()
            judged = output if self.loss is None else self.loss(output)
            differentiable = [t for t in tensors_in(judged) if t.requires_grad]
            if not differentiable:
                raise CannotMeasure(
                    f"no {'output' if self.loss is None else 'loss'} of the model needs a gradient, "
                    "so there is nothing to train",
                    remedy="hand over a model with trainable parameters, or drop phase='training'",
                )
            # The gradient of a sum is one everywhere: given so, the loss itself costs nothing.
            torch.autograd.backward(differentiable, [torch.ones_like(t) for t in differentiable])
        return output, differentiable

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """The tensors among the inputs, nested ones too."""
        return tuple(tensors_in((self.args, dict(self.kwargs))))

    @property
    def modules(self) -> tuple[torch.nn.Module, ...]:
        """The model, out of its compiled shell; a function has none that could be known."""
        import torch

        for model in (self.model, getattr(self.model, "__self__", None)):
            if isinstance(model, torch.nn.Module):
                return (without_shell(model),)
        return ()

    @property
    def compiled(self) -> bool:
        """Whether any part of it went through torch.compile."""
        return is_compiled(self.model)


def homes_of(models: Iterable[torch.nn.Module]) -> set[str]:
    """Return the kinds of devices on which models keep tensors."""
    return {tensor.device.type for model in models for tensor in _kept(model)}


def _kept(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    for part in parts_of(model):
        for tensor in itertools.chain(part._parameters.values(), part._buffers.values()):
            if tensor is not None:
                yield tensor


def is_compiled(model: Any) -> bool:
    """Tell whether a callable, or any module in it, went through torch.compile."""
    import torch

    if hasattr(model, "_torchdynamo_orig_callable"):
        return True
    if not isinstance(model, torch.nn.Module):
        return False
    return any(
        hasattr(module, "_orig_mod")
        or getattr(module, "_compiled_call_impl", None) is not None
        or hasattr(vars(module).get("forward"), "_torchdynamo_orig_callable")
        for module in parts_of(model)
    )


def same_device(asked: str, found: str) -> bool:
    """Tell whether a device was meant: "cuda" means every GPU, "cuda:1" one."""
    return asked == found or (":" not in asked and found.partition(":")[0] == asked)


def gradients_for(phase: Phase) -> AbstractContextManager[Any]:
    """Return the grad mode in which a phase runs when nobody else has chosen one."""
    if phase == "training":
        return nullcontext()
    import torch

    return torch.no_grad()


_ATOMS = frozenset({int, float, bool, complex, str, bytes, type(None)})


def tensors_in(tree: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of a nested structure, also those inside dataclasses such as outputs."""
    import torch

    kind = type(tree)
    if issubclass(kind, torch.Tensor):
        yield tree
    elif kind is tuple or kind is list:
        for each in tree:
            yield from tensors_in(each)
    elif kind is dict:
        yield from tensors_in([*tree.values()])
    elif kind not in _ATOMS:
        from torch.utils import _pytree

        for leaf in _pytree.tree_leaves(tree):
            if isinstance(leaf, torch.Tensor):
                yield leaf
            elif hasattr(leaf, "__dataclass_fields__"):
                yield from tensors_in(list(vars(leaf).values()))
            elif leaf is not tree:
                yield from tensors_in(leaf)
