"""Recurrent layers: 2 x gates x hidden x (input + hidden) FLOP per step, sequence and direction."""

import pytest
import torch
from torch import nn

import pytest_nnscale
from pytest_nnscale.counting.formulas import formula_for

STEPS, BATCH, WIDE, HIDDEN = 5, 2, 3, 4
GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}


def closed_form(gates, *, positions=STEPS * BATCH, layers=1, directions=1, projected=0):
    """Written from the definition: every layer reads all directions of the one below."""
    total, width, recurrent = 0, WIDE, projected or HIDDEN
    for _ in range(layers):
        one = 2 * gates * HIDDEN * (width + recurrent) + 2 * HIDDEN * projected
        total += directions * positions * one
        width = directions * recurrent
    return total


def flops(model, *inputs, phase="inference"):
    found = pytest_nnscale.profile(model, inputs, phase=phase, metrics=["flops"])
    assert found.uncounted == ()
    return found.flops


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("layer", GATES)
def test_stacked_layers_have_their_closed_form(layer, layers, bidirectional):
    """Each direction of each layer counts, and a layer reads both directions of the one below."""
    model = layer(WIDE, HIDDEN, layers, bidirectional=bidirectional)
    expected = closed_form(GATES[layer], layers=layers, directions=1 + bidirectional)
    assert flops(model, torch.randn(STEPS, BATCH, WIDE)) == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_count_is_the_same_fused_and_unfused(dtype):
    """In double precision an LSTM dispatches its products one by one."""
    model = nn.LSTM(WIDE, HIDDEN, 2, batch_first=True).to(dtype)
    inputs = torch.randn(BATCH, STEPS, WIDE, dtype=dtype)
    assert flops(model, inputs) == closed_form(4, layers=2)


def test_projections_make_the_recurrent_matrix_smaller_and_add_their_own():
    """The state fed back has the projected width, and each step pays the projection."""
    model = nn.LSTM(WIDE, HIDDEN, 2, proj_size=2, bidirectional=True)
    expected = closed_form(4, layers=2, directions=2, projected=2)
    assert flops(model, torch.randn(STEPS, BATCH, WIDE)) == expected


@pytest.mark.parametrize("layer", GATES)
def test_packed_sequences_pay_for_their_steps_only(layer):
    """Five and three steps are eight, not twice five."""
    model, sequences = layer(WIDE, HIDDEN, 2), torch.randn(STEPS, BATCH, WIDE)
    packed = nn.utils.rnn.pack_padded_sequence(sequences, [5, 3])
    assert flops(model, packed) == closed_form(GATES[layer], positions=8, layers=2)


@pytest.mark.parametrize(
    ("cell", "gates"), [(nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)], ids=str
)
def test_a_cell_is_one_step(cell, gates):
    """A cell costs what one step of its layer does."""
    assert flops(cell(WIDE, HIDDEN), torch.randn(BATCH, WIDE)) == closed_form(
        gates, positions=BATCH
    )


def test_training_a_fused_lstm_costs_three_forwards():
    """Its backward kernel gives the input's gradient too, whether or not anybody asks for it."""
    model, x = nn.LSTM(WIDE, HIDDEN, 2), torch.randn(STEPS, BATCH, WIDE)
    forward = closed_form(4, layers=2)
    assert flops(model, x, phase="training") == 3 * forward
    assert flops(model, x.requires_grad_(), phase="training") == 3 * forward


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("layer", GATES)
def test_training_unfused_layers_leaves_out_gradients_of_initial_states(
    layer, layers, bidirectional
):
    """Nobody needs these, and where products are dispatched one by one they are not made."""
    model = layer(WIDE, HIDDEN, layers, bidirectional=bidirectional).double()
    x = torch.randn(STEPS, BATCH, WIDE, dtype=torch.double, requires_grad=True)
    directions = 1 + bidirectional
    forward = closed_form(GATES[layer], layers=layers, directions=directions)
    first = 2 * BATCH * GATES[layer] * HIDDEN * HIDDEN * layers * directions
    assert flops(model, x, phase="training") == 3 * forward - first


def test_training_projections_leaves_out_gradients_of_initial_states():
    """The recurrent matrix meets the projected state, of two features here."""
    model = nn.LSTM(WIDE, HIDDEN, proj_size=2)
    x = torch.randn(STEPS, BATCH, WIDE, requires_grad=True)
    first = 2 * BATCH * 4 * HIDDEN * 2
    assert flops(model, x, phase="training") == 3 * closed_form(4, projected=2) - first


@pytest.mark.parametrize("layer", GATES)
def test_training_packed_sequences_pays_for_their_steps_only(layer):
    """Five and three steps are eight, forward and backward, less what both begin with."""
    model = layer(WIDE, HIDDEN).double()
    x = torch.randn(STEPS, BATCH, WIDE, dtype=torch.double, requires_grad=True)

    def packed(x):
        return model(nn.utils.rnn.pack_padded_sequence(x, [5, 3]))[0].data

    first = 2 * BATCH * GATES[layer] * HIDDEN * HIDDEN
    expected = 3 * closed_form(GATES[layer], positions=8) - first
    with pytest_nnscale.count() as counting:
        packed(x).sum().backward()
    assert (counting.profile.flops, counting.profile.uncounted) == (expected, ())


@pytest.mark.parametrize(
    ("cell", "gates"), [(nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)], ids=str
)
def test_training_a_cell_costs_three_steps_and_what_its_states_need(cell, gates):
    """The state that it starts with has a gradient only where it asks for one."""
    model, x = cell(WIDE, HIDDEN), torch.randn(BATCH, WIDE, requires_grad=True)
    forward, first = closed_form(gates, positions=BATCH), 2 * BATCH * gates * HIDDEN * HIDDEN
    assert flops(model, x, phase="training") == 3 * forward - first
    state = torch.randn(BATCH, HIDDEN, requires_grad=True)
    given = (state, state) if cell is nn.LSTMCell else state
    assert flops(model, x, given, phase="training") == 3 * forward


def test_joining_gates_on_a_gpu_costs_nothing():
    """The products of a cell are dispatched before its fused kernel adds them up."""
    for name in ("lstm_cell", "lstm_cell_backward_impl", "gru_cell", "gru_cell_backward"):
        joined = formula_for(getattr(torch.ops.aten, f"_thnn_fused_{name}").default)
        assert joined(torch.empty(BATCH, 4 * HIDDEN), out_val=None) == 0
    flat = formula_for(torch.ops.aten._cudnn_rnn_flatten_weight.default)
    assert flat([torch.empty(4, 4)], 4, 3, 2, 4, 0, 1, False, False, out_val=None) == 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("layer", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)], ids=str)
def test_dynamically_quantised_layers_cost_what_plain_ones_do(layer, gates):
    """Eight-bit products are as many."""
    plain = nn.Sequential(layer(WIDE, HIDDEN, 2, bidirectional=True))
    model = torch.ao.quantization.quantize_dynamic(plain, {layer})
    expected = closed_form(gates, layers=2, directions=2)
    assert flops(model, torch.randn(STEPS, BATCH, WIDE)) == expected
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(STEPS, BATCH, WIDE), [5, 3])
    assert flops(model, packed) == closed_form(gates, positions=8, layers=2, directions=2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("cell", "gates"), [(nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)], ids=str
)
def test_dynamically_quantised_cells_cost_what_plain_ones_do(cell, gates):
    """Eight-bit products are as many, whatever function follows."""
    plain = [cell(WIDE, HIDDEN)]
    if cell is nn.RNNCell:
        plain.append(cell(WIDE, HIDDEN, nonlinearity="relu"))
    for model in torch.ao.quantization.quantize_dynamic(nn.ModuleList(plain), {cell}):
        assert flops(model, torch.randn(BATCH, WIDE)) == closed_form(gates, positions=BATCH)


@pytest.mark.parametrize("proj", [0, 2])
@pytest.mark.parametrize("mask", [False, True])
def test_cudnn_layers_count_from_their_weights(proj, mask):
    """On a GPU all layers are one operator, which gets every weight; data gradients always run."""
    state = proj or HIDDEN
    weights = []
    for width in (WIDE, 2 * state):
        for _direction in range(2):
            shapes = [(4 * HIDDEN, width), (4 * HIDDEN, state), (4 * HIDDEN,), (4 * HIDDEN,)]
            shapes += [(proj, HIDDEN)] if proj else []
            weights += [torch.empty(shape, device="meta") for shape in shapes]
    x = torch.empty(STEPS, BATCH, WIDE, device="meta")
    hx, cx = (torch.empty(4, BATCH, n, device="meta") for n in (state, HIDDEN))
    options = (2, HIDDEN, proj, 2, False, 0.0, True, True, [], None)
    forward = formula_for(torch.ops.aten._cudnn_rnn.default)
    expected = closed_form(4, layers=2, directions=2, projected=proj)
    assert forward(x, weights, 4, None, hx, cx, *options, out_val=None) == expected
    backward = formula_for(torch.ops.aten._cudnn_rnn_backward.default)
    asked = [False, False, False, mask]
    grads = (x, weights, 4, x, hx, cx, x, x, None, None, *options, x, asked)
    assert backward(*grads, out_val=None) == expected * (1 + mask)
