"""Tensors of a trace that outlive it, in caches that the user's code keeps outside its models.

A later call would find a tensor without data there. What is found so is taken out: caches of
functools are emptied, other containers lose what they would not have without the trace, and a name
that held such a tensor holds None, as caches do that are filled on first use.
"""

from __future__ import annotations

import functools
import gc
import types
from typing import Any

from pytest_nnscale.counting.liveness import Lifeline, Liveness
from pytest_nnscale.counting.traced import Traced

_DEEP = 5  # steps from a tensor to the cache that keeps it


def let_go(liveness: Liveness) -> bool:
    """Take tensors of a trace out of what keeps them; tell whether there were any."""
    if not liveness.left_over():
        return False
    gc.collect()  # most are in cycles, which would be freed in time
    if not liveness.left_over():
        return False
    for left in _kept(liveness):
        _take_out(left)
    return True


def _kept(liveness: Liveness) -> tuple[Traced, ...]:
    # A tuple, since a list of ours would be found among what holds them, and emptied.
    return tuple(
        each
        for each in gc.get_objects()
        if type(each) is Traced
        and type(each.lifeline) is Lifeline
        and each.lifeline.note == liveness.note
    )


def _take_out(left: Any) -> None:
    inside: list[Any] = [left]
    for _ in range(_DEEP):
        holders = [
            holder
            for holder in gc.get_referrers(*inside)
            if holder is not inside and not isinstance(holder, types.FrameType)
        ]
        caches = [each for each in holders if isinstance(each, functools._lru_cache_wrapper)]
        for cache in caches:
            cache.cache_clear()
        links = any(map(_is_link, inside))
        found = {id(each) for each in inside}
        for holder in holders if not links else ():
            _empty(holder, found)
        # What a tuple or a link of a cache holds is held by whoever holds that.
        inside = [each for each in holders if isinstance(each, tuple) or _is_link(each)]
        if caches or not inside:
            return


def _is_link(value: Any) -> bool:
    return type(value).__name__ == "_lru_list_elem"


def _empty(holder: Any, found: set[int]) -> None:
    """Take some objects out of what holds them directly."""
    if isinstance(holder, list):
        holder[:] = [each for each in holder if id(each) not in found]
    elif isinstance(holder, dict):
        named = "__name__" in holder or _is_of_object(holder)
        for key in [key for key, value in holder.items() if id(value) in found]:
            if named:
                holder[key] = None
            else:
                del holder[key]
    elif isinstance(holder, set):
        holder.difference_update([each for each in holder if id(each) in found])
    elif isinstance(holder, types.CellType):
        holder.cell_contents = None
    elif not isinstance(holder, tuple) and hasattr(holder, "__dict__"):
        for name in [name for name, value in vars(holder).items() if id(value) in found]:
            setattr(holder, name, None)


def _is_of_object(names: dict[Any, Any]) -> bool:
    return any(getattr(each, "__dict__", None) is names for each in gc.get_referrers(names))
