"""Sums and means of the rows of a table."""

from __future__ import annotations

from typing import Any

import torch

from pytest_nnscale.counting.shape_rules.registry import WRONG, Answer, rule
from pytest_nnscale.counting.shape_rules.strides import like
from pytest_nnscale.counting.specs import Spec, spec
from pytest_nnscale.counting.traced import NeedsValues


@rule("aten::_embedding_bag", "aten::_embedding_bag_forward_only", device="cpu")
def _embedding_bag(weight: Spec, indices: Spec, offsets: Spec, *args: Any) -> Answer:
    defaults: tuple[Any, ...] = (False, 0, False, None, False, -1)
    _scale, mode, _sparse, per_sample, include_last, padding = args + defaults[len(args) :]
    if per_sample is not None and (
        per_sample.dtype != weight.dtype or per_sample.size != indices.size
    ):
        raise NeedsValues(WRONG)
    bags = offsets.size[0] - int(include_last)
    whole = torch.promote_types(indices.dtype, offsets.dtype)
    rows, counts = like(weight, (bags, weight.size[1])), like(offsets, (bags,), whole)
    roomy = spec((bags,), (1,), whole, weight.device, room=offsets.size[0])
    # A sum keeps no trace of which row went where, unless it is taken row by row.
    fast = weight.dtype in _FAST_SUMS and weight.stride[1] == 1 and padding < 0
    fast = fast and (per_sample is None or per_sample.stride[0] == 1)
    traces = 0 if mode == 0 and fast else indices.size[0]
    room = traces and traces + 1
    origins = spec((traces,), (1,), whole, weight.device, room=room)
    return [rows, origins, roomy, like(indices, rows.size, whole) if mode == 2 else counts]


_FAST_SUMS = frozenset({torch.float32, torch.float16, torch.bfloat16})
