"""Attention: queries by keys, then scores by values, each a dense product for every query head.

Causal, masked and windowed attention counts as the full square, as in torch: whether a kernel skips
blocks is its own affair. With grouped queries each query head meets the key head that it shares, so
that keys and values repeat; values may be of another width. A backward pass computes the scores
once more, and four products beside: five in all. A fused encoder layer adds its projections.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from pytest_nnscale.counting.formulas.registry import NoFormula, Shape, named, ours


def _pair(query: Shape, key: Shape, value: Shape) -> tuple[int, int]:
    """Return what one product with the keys costs, and one with the values."""
    squares = 2 * prod(query[:-1]) * key[-2]  # every batch, head and query, and every key
    return squares * query[-1], squares * value[-1]


@ours(
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    *named(
        "aten",
        "_scaled_dot_product_fused_attention_overrideable "
        "_scaled_dot_product_attention_math_for_mps _triton_scaled_dot_attention",
    ),
)
def _forward(query: Shape, key: Shape, value: Shape, *_args: Any, **_: Any) -> int:
    return sum(_pair(query, key, value))


@ours(
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    *named("aten", "_scaled_dot_product_fused_attention_overrideable_backward"),
)
def _backward(
    _gradient: Shape, query: Shape, key: Shape, value: Shape, *_args: Any, **_: Any
) -> int:
    with_keys, with_values = _pair(query, key, value)
    return 3 * with_keys + 2 * with_values


def _sequences(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends: Tensor | None,
    key_ends: Tensor | None,
    used: Tensor | None = None,
) -> tuple[int, int]:
    """Add up what packed sequences cost, each by itself; without ends there is one batch.

    Heads are the last axis but one. `used` says how many keys of a cache each sequence uses.
    """
    heads, width = query.shape[-2:]
    if ends is None and key_ends is None and used is None:
        squares = prod(query.shape[:-3]) * query.shape[-3] * key.shape[-3]
    else:
        theirs = key_ends if used is None else torch.nn.functional.pad(used.cumsum(0), (1, 0))
        if ends is None or theirs is None or "meta" in (ends.device.type, theirs.device.type):
            raise NoFormula("the lengths of its sequences are not in the shapes")
        lengths = zip(ends.diff().tolist(), theirs.diff().tolist(), strict=True)
        squares = sum(mine * other for mine, other in lengths)
    return 2 * heads * squares * width, 2 * heads * squares * value.shape[-1]


@ours("aten::_efficient_attention_forward", get_raw=True)
def _efficient(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _bias: object,
    ends: Tensor | None,
    key_ends: Tensor | None,
    *_args: Any,
    seqlen_k: Tensor | None = None,
    **_: Any,
) -> int:
    return sum(_sequences(query, key, value, ends, key_ends, seqlen_k))


@ours("aten::_efficient_attention_backward", get_raw=True)
def _efficient_backward(
    _gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _bias: object,
    _out: Tensor,
    ends: Tensor | None,
    key_ends: Tensor | None,
    *_args: Any,
    **_: Any,
) -> int:
    with_keys, with_values = _sequences(query, key, value, ends, key_ends)
    return 3 * with_keys + 2 * with_values


@ours("aten::_flash_attention_forward", *named("torch_attn", "_varlen_attn"), get_raw=True)
def _flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends: Tensor | None,
    key_ends: Tensor | None,
    *_args: Any,
    seqused_k: Tensor | None = None,
    **_: Any,
) -> int:
    return sum(_sequences(query, key, value, ends, key_ends, seqused_k))


@ours(
    *named("aten", "_flash_attention_forward_no_dropout_inplace"),
    *named("torch_attn", "_varlen_attn_out"),
    get_raw=True,
)
def _flash_inplace(_out: Tensor, *args: Any, **kwargs: Any) -> int:
    return _flash(*args, **kwargs)


@ours(
    "aten::_flash_attention_backward",
    *named("torch_attn", "_varlen_attn_backward"),
    get_raw=True,
)
def _flash_backward(
    _gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _out: Tensor,
    _scores: Tensor,
    ends: Tensor | None,
    key_ends: Tensor | None,
    *_args: Any,
    **_: Any,
) -> int:
    with_keys, with_values = _sequences(query, key, value, ends, key_ends)
    return 3 * with_keys + 2 * with_values


@ours(*named("aten", "_cudnn_attention_forward"), get_raw=True)
def _cudnn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _bias: object,
    ends: Tensor | None,
    key_ends: Tensor | None,
    *_args: Any,
    seqused_k: Tensor | None = None,
    **_: Any,
) -> int:
    if ends is None and key_ends is None and seqused_k is None:
        return sum(_pair(query.shape, key.shape, value.shape))  # heads come before steps
    return sum(_sequences(query, key, value, ends, key_ends, seqused_k))


@ours(*named("aten", "_cudnn_attention_backward"), get_raw=True)
def _cudnn_backward(
    _gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *args: Any, **_: Any
) -> int:
    ends, key_ends = args[5:7]
    if ends is None:
        with_keys, with_values = _pair(query.shape, key.shape, value.shape)
    else:
        with_keys, with_values = _sequences(query, key, value, ends, key_ends)
    return 3 * with_keys + 2 * with_values


@ours("aten::_native_multi_head_attention", *named("aten", "_triton_multi_head_attention"))
def _multi_head(
    query: Shape, key: Shape, value: Shape, width: int, _heads: int, *_args: Any, **_: Any
) -> int:
    # Four projections of width x width, and attention in between, whatever the number of heads.
    batch, targets, sources = query[0], query[1], key[1]
    return multi_head(width, batch * (targets + sources + value[1]), batch * targets, sources)


def multi_head(width: int, projected: int, queries: int, sources: int) -> int:
    """Count projections into, attention of, and the projection out of all heads together."""
    return 2 * width * width * (projected + queries) + 2 * 2 * queries * sources * width


@ours("aten::_transformer_encoder_layer_fwd")
def _encoder_layer(steps: Shape, width: int, _heads: int, *args: Any, **_: Any) -> int:
    batch, length = steps[0], steps[1]
    inner, outer = hidden_weights(args)
    attention = multi_head(width, 3 * batch * length, batch * length, length)
    return int(attention + 2 * batch * length * (prod(inner) + prod(outer)))


def hidden_weights(args: Sequence[Any]) -> tuple[Any, Any]:
    """Return the two weights of the feed-forward part among what follows the number of heads."""
    return args[11], args[13]
