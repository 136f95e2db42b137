"""What joins tensors."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_nnscale.counting.shape_rules.registry import Answer, rule
from pytest_nnscale.counting.shape_rules.strides import layout_of
from pytest_nnscale.counting.specs import Spec, spec


@rule("aten::cat", device="cpu")
def _cat(tensors: Sequence[Spec], dim: int = 0) -> Answer:
    if not tensors or not -len(tensors[0].size) <= dim < len(tensors[0].size):
        return None
    first, *others = tensors
    axis = dim % len(first.size)
    layout = layout_of(first)
    # torch takes an empty list of numbers for nothing at all, whatever it is joined with.
    if layout is None or any(tensor.size == (0,) for tensor in tensors):
        return None
    size = [*first.size]
    for other in others:
        if other.dtype != first.dtype or layout_of(other) is not layout:
            return None
        if _across(other, axis) != _across(first, axis):
            return None
        size[axis] += other.size[axis]
    return [spec(tuple(size), layout(tuple(size)), first.dtype, first.device)]


def _across(tensor: Spec, axis: int) -> list[int | None]:
    """Return the size of a tensor but for its length along an axis."""
    return [None if each == axis else length for each, length in enumerate(tensor.size)]
