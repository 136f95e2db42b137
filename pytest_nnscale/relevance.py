"""Whether a test could have to do with torch at all, told from what its code and fixtures name."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Iterator
from typing import Any


def touches_torch(item: Any) -> bool:
    """Tell whether a test's fixtures, or the names that its code reads, lead to torch.

    Asked of a test that could not be observed and that only inherited a budget. Names lead to
    torch where they are torch's, or where the file that defines them uses torch.
    """
    if "torch" not in sys.modules:
        return False
    function = inspect.unwrap(getattr(item, "obj", None) or item)
    # hypothesis hides what it wraps elsewhere.
    function = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    code = getattr(function, "__code__", None)
    if code is None:
        return True
    values = [*getattr(item, "funcargs", {}).values(), getattr(item, "instance", None)]
    values += vars(values[-1]).values() if hasattr(values[-1], "__dict__") else ()
    values += [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    names = set(_names(code))
    values += [value for name, value in function.__globals__.items() if name in names]
    return any(_leads_to_torch(value) for value in values)


def _names(code: types.CodeType) -> Iterator[str]:
    """Yield the names that a function reads, also inside functions that it defines."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _leads_to_torch(value: object) -> bool:
    if _is_of_torch(value):
        return True
    own = isinstance(value, type | types.FunctionType)
    name = (value if own else type(value)).__module__
    home = value if isinstance(value, types.ModuleType) else sys.modules.get(str(name))
    return isinstance(home, types.ModuleType) and any(map(_is_of_torch, vars(home).values()))


def _is_of_torch(value: object) -> bool:
    if isinstance(value, types.ModuleType):
        return _is_torchs(value.__name__)
    kinds = type(value).__mro__ + (value.__mro__ if isinstance(value, type) else ())
    return any(_is_torchs(kind.__module__) for kind in kinds)


def _is_torchs(name: object) -> bool:
    return str(name).partition(".")[0] in ("torch", "torchvision")
