"""Autocast below a dispatch mode, where torch leaves it out."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch

_deeper, _less_deep = torch.autocast_increment_nesting, torch.autocast_decrement_nesting
_KEYS = {
    "cpu": torch._C.DispatchKey.AutocastCPU,
    "cuda": torch._C.DispatchKey.AutocastCUDA,
    "mps": torch._C.DispatchKey.AutocastMPS,  # type: ignore[attr-defined]
    "xpu": torch._C.DispatchKey.AutocastXPU,
}


def autocast_depth() -> int:
    """Tell how many autocasts are nested around; one that switches it off counts, too."""
    _deeper()  # the one question to autocast that is answered below a mode
    return _less_deep()


def casting() -> AbstractContextManager[Any]:
    """Have autocast see operators that a mode calls, as it would see them without the mode."""
    if not autocast_depth():
        return nullcontext()
    # What was on where the mode was called.
    with torch._C._RestorePythonTLSSnapshot():  # type: ignore[attr-defined]
        on = [key for kind, key in _KEYS.items() if torch.is_autocast_enabled(kind)]
    guards = ExitStack()
    for key in on:
        guards.enter_context(torch._C._SetExcludeDispatchKeyGuard(key, False))
    return guards
