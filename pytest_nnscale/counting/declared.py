"""The operators that a project declared free of contraction work: its word, not a formula.

Loaded by the plugin without torch, so it holds names alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pytest_nnscale.errors import BadOption, shown

# "my::op" means every overload of it, "my::op.out" one.
_NAME = re.compile(r"[A-Za-z_]\w*::[A-Za-z_]\w*(\.\w+)?")
_names: frozenset[str] = frozenset()


def parse_names(texts: Iterable[str]) -> frozenset[str]:
    """Read operator names, listed or one by one; BadOption shows one that is none."""
    names = [name for text in texts for name in text.replace(",", " ").split()]
    for name in names:
        if not _NAME.fullmatch(name):
            raise BadOption(f"{shown(name)} is no operator's name; write it like my::op")
    return frozenset(names)


def declare_free(names: frozenset[str]) -> None:
    """Take the operators of these names for free from now on, and no others."""
    global _names
    _names = names


def is_declared_free(name: str, overload: str) -> bool:
    """Tell whether an operator, or the overload of it, was declared free."""
    return name in _names or f"{name}.{overload}" in _names


def declared_names() -> frozenset[str]:
    """Return the names of all operators that are declared free now."""
    return _names
