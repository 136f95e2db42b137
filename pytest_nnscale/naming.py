"""Names and paths of modules, the same in every report: of a model, not of what wraps it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import MethodType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def class_name(module: nn.Module) -> str:
    """Name the class of a module; of a scripted one the class it was scripted from."""
    kind = type(module)
    if hasattr(kind, "original_name"):
        original = getattr(module, "original_name", None)
        if isinstance(original, str):
            return original
    return kind.__name__


def is_shell(module: nn.Module) -> bool:
    """Tell whether a module is the shell that torch.compile puts around another."""
    return type(module).__name__ == "OptimizedModule" and hasattr(module, "_orig_mod")


def without_shell(module: nn.Module) -> nn.Module:
    """Return the module that was compiled, or the module itself."""
    return module._orig_mod if is_shell(module) else module  # type: ignore[return-value]


def reference_name(reference: object) -> str:
    """Name a callable by where it is written: "package.module.function"; a text is its own name."""
    if isinstance(reference, str):
        return reference
    named = reference if hasattr(reference, "__qualname__") else type(reference)
    return f"{named.__module__}.{named.__qualname__}"


def identity_of(reference: Callable[..., object]) -> int:
    """Tell callables apart that are named alike; a bound method is made anew each time it is read."""
    return hash(reference) if isinstance(reference, MethodType) else id(reference)


_MOST_NAMES = 3


def joint_name(modules: Sequence[nn.Module]) -> str:
    """Name several models by their classes: "Encoder + Decoder", "20 x Linear + LSTM + 4 more"."""
    names = [class_name(without_shell(module)) for module in modules]
    if len(names) <= _MOST_NAMES:
        return " + ".join(names)
    counts = Counter(names)
    kinds = [name if n == 1 else f"{n} x {name}" for name, n in counts.items()]
    unnamed = sum([*counts.values()][_MOST_NAMES:])
    return " + ".join([*kinds[:_MOST_NAMES], *([f"{unnamed} more"] if unnamed else [])])


def parts_of(root: nn.Module) -> Iterator[nn.Module]:
    """Yield a module and all below it, each once, in the order of `modules()`, and faster."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        module = stack.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield module
        below = module._modules
        if below:
            stack.extend(part for part in reversed([*below.values()]) if part is not None)
