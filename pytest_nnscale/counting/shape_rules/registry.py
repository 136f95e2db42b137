"""Which rule an operator has, on which kind of device."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch

from pytest_nnscale.counting.specs import Spec

# Of each output its spec; or the position of the argument that it is, where that is written in
# place; or None: the attention weights that nobody asked for. In place of them all, None: ask torch.
Answer = Sequence[Spec | int | None] | None
Rule = Callable[..., Answer]
# torch refuses some calls on a device that it takes on meta: running them shows its own error.
WRONG = "torch refuses such a call, or has an answer of its own"
_rules: dict[tuple[str, str], Rule] = {}


def rule(*operators: str, device: str = "") -> Callable[[Rule], Rule]:
    """Register what some operators, by name, return on a kind of device, or on all of them.

    "aten::mm" is the default overload, "aten::mean.dim" another one.
    """

    def register(rule: Rule) -> Rule:
        for operator in operators:
            _rules[operator, device] = rule
        return rule

    return register


@functools.cache
def rule_for(func: torch._ops.OpOverload, device: str) -> Rule | None:
    """Return the rule of an operator on a kind of device, or for all of them."""
    return _rules.get((func.name(), device)) or _rules.get((func.name(), ""))
