"""Recurrent layers: each weight matrix meets each element of each time step once.

For one direction of one layer these are 2 x G x H x (I + H) FLOP per step and sequence, with G = 4
gates in an LSTM, 3 in a GRU, 1 in a plain RNN; a projection to P features adds 2 x H x P, and its
recurrent matrix meets P features instead of H. Padding of packed sequences is not computed.
Cells, and layers without a fused kernel, dispatch matrix products and are counted by these;
`_thnn_fused_*_cell` joins gates that are computed already, and costs nothing. The products that
they dispatch leave out a gradient that nobody needs, that of the initial state; fused kernels on
the CPU do not.
Reference: torch/csrc/api and aten/src/ATen/native/RNN.cpp for what the kernels compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from pytest_nnscale.counting.formulas.registry import Shape, named, ours

Shapes = Sequence[Shape]


def _layers(steps: Shape, weights: Shapes) -> int:
    """Count what matrices cost that meet all steps; biases, and weights in one buffer, are flat."""
    return 2 * prod(steps[:-1]) * sum(prod(weight) for weight in weights if len(weight) == 2)


@ours("aten::mkldnn_rnn_layer")
def _mkldnn_layer(steps: Shape, inner: Shape, recurrent: Shape, *_args: Any, **_: Any) -> int:
    return _layers(steps, [inner, recurrent])


@ours("aten::mkldnn_rnn_layer_backward")
def _mkldnn_layer_backward(
    steps: Shape, inner: Shape, recurrent: Shape, *_args: Any, **_: Any
) -> int:
    # It returns the gradients of inputs, states and weights, whichever of them are asked for.
    return 2 * _layers(steps, [inner, recurrent])


@ours("aten::_cudnn_rnn", *named("aten", "miopen_rnn"))
def _gpu(steps: Shape, weights: Shapes, *_args: Any, **_: Any) -> int:
    return _layers(steps, weights)


@ours("aten::_cudnn_rnn_backward", *named("aten", "miopen_rnn_backward"))
def _gpu_backward(steps: Shape, weights: Shapes, *args: Any, **_: Any) -> int:
    # The data gradients are always computed, those of the weights where they are asked for.
    return _layers(steps, weights) * (1 + int(args[-1][3]))


@ours(*named("aten", "_lstm_mps"))
def _mps(steps: Shape, _states: Shapes, weights: Shapes, *_args: Any, **_: Any) -> int:
    return _layers(steps, weights)


@ours(
    *named(
        "aten",
        "_thnn_fused_lstm_cell _thnn_fused_lstm_cell_backward_impl _thnn_fused_gru_cell "
        "_thnn_fused_gru_cell_backward _cudnn_rnn_flatten_weight",
    )
)
def _elementwise(*_args: Any, **_: Any) -> int:
    return 0  # sums and products of numbers in the same place, or copies


def _stacked(gates: int, steps: Shape, hidden: int, layers: int, bidirectional: bool) -> int:
    directions = 2 if bidirectional else 1
    widths = steps[-1] + (layers - 1) * directions * hidden  # what comes into each layer
    each = gates * hidden * (widths + layers * hidden)
    return 2 * prod(steps[:-1]) * directions * each


def _hidden(states: Any) -> int:
    first = states[0] if states and not isinstance(states[0], int) else states
    return int(first[-1])


def _packed(gates: int) -> Any:
    def formula(steps: Shape, states: Any, *args: Any, **_: Any) -> int:
        _params, _biases, layers, _dropout, _train, bidirectional, *_rest = args
        return _stacked(gates, steps, _hidden(states), layers, bidirectional)

    def of_sequences(steps: Shape, _sizes: Shape, states: Any, *args: Any, **_: Any) -> int:
        return int(formula(steps, states, *args))

    return formula, of_sequences


for _name, _gates in (("quantized_lstm", 4), ("quantized_gru", 3)):
    _whole, _of_sequences = _packed(_gates)
    ours(*named("aten", f"{_name}.input {_name}.input_legacy"))(_whole)
    ours(*named("aten", f"{_name}.data {_name}.data_legacy"))(_of_sequences)


def _cell(gates: int) -> Any:
    def formula(steps: Shape, states: Any, *_args: Any, **_: Any) -> int:
        return _stacked(gates, steps, _hidden(states), 1, False)

    return formula


for _name, _gates in (("lstm", 4), ("gru", 3), ("rnn_relu", 1), ("rnn_tanh", 1)):
    ours(*named("quantized", f"quantized_{_name}_cell_dynamic"))(_cell(_gates))
