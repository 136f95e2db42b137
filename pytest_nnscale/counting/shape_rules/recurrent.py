"""Recurrent layers that run as a whole."""

from __future__ import annotations

from typing import Any

from pytest_nnscale.counting.shape_rules.registry import Answer, rule
from pytest_nnscale.counting.shape_rules.strides import like
from pytest_nnscale.counting.specs import Spec
from pytest_nnscale.counting.traced import NeedsValues


@rule("aten::mkldnn_rnn_layer", device="cpu")
def _recurrent_layer(steps: Spec, *args: Any) -> Answer:
    _weights, states, training = args[:4], args[4:6], args[-1]
    if training:
        raise NeedsValues("only oneDNN knows how much aten::mkldnn_rnn_layer keeps for training")
    hidden = states[0].size[-1]
    after = [like(state, state.size) for state in states]
    return [like(steps, (*steps.size[:2], hidden)), *after, None]
