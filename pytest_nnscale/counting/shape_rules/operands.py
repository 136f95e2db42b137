"""What rules ask of operands."""

from __future__ import annotations

import torch

from pytest_nnscale.counting.specs import Spec

HALVES = frozenset({torch.float16, torch.bfloat16})
# In narrower ones a CPU computes little.
FLOATS = HALVES | {torch.float32, torch.float64}
INTEGERS = frozenset({torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})
NUMBERS = frozenset({int, float})


def fits(size: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Tell whether what has a size broadcasts to another one, and leaves that as it is."""
    missing = len(whole) - len(size)
    return missing >= 0 and all(
        length in (1, other) for length, other in zip(size, whole[missing:], strict=True)
    )


def overlaps(tensor: Spec) -> bool:
    """Tell whether some elements of a tensor share their place, as those of an expanded one do."""
    steps = zip(tensor.size, tensor.stride, strict=True)
    return tensor.numel > 0 and any(length > 1 and step == 0 for length, step in steps)
