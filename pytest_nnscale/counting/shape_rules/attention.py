"""Attention, and encoder layers that run as a whole."""

from __future__ import annotations

from typing import Any

from pytest_nnscale.counting.shape_rules.registry import WRONG, Answer, rule
from pytest_nnscale.counting.shape_rules.strides import like
from pytest_nnscale.counting.specs import Spec
from pytest_nnscale.counting.traced import NeedsValues


@rule("aten::_native_multi_head_attention")
def _multi_head_attention(
    query: Spec,
    key: Spec,
    _value: Spec,
    _width: int,
    heads: int,
    _qkv_weight: Spec,
    _qkv_bias: Spec,
    _out_weight: Spec,
    _out_bias: Spec,
    _mask: Spec | None = None,
    need_weights: bool = True,
    average_weights: bool = True,
    *_: Any,
) -> Answer:
    batch, targets, sources = query.size[0], query.size[1], key.size[1]
    weights = None
    if need_weights:
        size = (batch, targets, sources) if average_weights else (batch, heads, targets, sources)
        weights = like(query, size)
    return [like(query, query.size), weights]


@rule("aten::_transformer_encoder_layer_fwd")
def _encoder_layer(steps: Spec, width: int, *_: Any, **__: Any) -> Answer:
    if steps.size[-1] != width:
        raise NeedsValues(WRONG)
    return [like(steps, steps.size)]
