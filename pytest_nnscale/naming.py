"""Names and paths of modules, the same in every report: of a model, not of what wraps it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def class_name(module: nn.Module) -> str:
    """Name the class of a module; of a scripted one the class it was scripted from."""
    original = getattr(module, "original_name", None)
    return original if isinstance(original, str) else type(module).__name__


def is_shell(module: nn.Module) -> bool:
    """Tell whether a module is the shell that torch.compile puts around another."""
    return type(module).__name__ == "OptimizedModule" and hasattr(module, "_orig_mod")


def without_shell(module: nn.Module) -> nn.Module:
    """Return the module that was compiled, or the module itself."""
    return module._orig_mod if is_shell(module) else module  # type: ignore[return-value]


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


def named_parts(roots: Sequence[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """Yield every module below some roots with its path; a shared one at its first.

    The only root has the path "", its parts the names that `named_modules` gives them. Several
    roots go by their classes, a second of a class by "Class#2".
    """
    seen: set[int] = set()
    taken: dict[str, int] = {}
    for root in roots:
        kind = class_name(without_shell(root))
        taken[kind] = taken.get(kind, 0) + 1
        stem = kind if taken[kind] == 1 else f"{kind}#{taken[kind]}"
        prefix = "" if len(roots) == 1 else stem
        for name, module in root.named_modules():
            if id(module) in seen or is_shell(module):
                continue
            seen.add(id(module))
            steps = [prefix, *name.split(".")]
            yield ".".join(step for step in steps if step and step != "_orig_mod"), module
