"""What shapes foretell of embeddings, recurrent layers, attention and optimisers is what a CPU gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

r = torch.rand


def trained(model: nn.Module, *inputs: Any, **named: Any) -> None:
    """Call a model and, where gradients are on, take the backward pass."""
    if isinstance(model, nn.RNNBase) and not torch.is_grad_enabled():
        model.eval()
    out = model(*inputs, **named)
    outs = [t for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, Tensor)]
    if torch.is_grad_enabled():
        torch.autograd.backward([t.sum() for t in outs if t.requires_grad])


@pytest.mark.parametrize("gradients", [False, True], ids=["alone", "backward"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("ends", [False, True], ids=["starts", "ends"])
@pytest.mark.parametrize("padding", [None, 0], ids=["all", "padded"])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_a_bag_of_embeddings_gives_what_its_shapes_foretell(
    set_beside: Any, mode: str, padding: int | None, ends: bool, dtype: Any, gradients: bool
) -> None:
    """Which of the four outputs are there, and how large, depends on mode, dtype and padding."""
    bag = nn.EmbeddingBag(
        5, 4, mode=mode, include_last_offset=ends, padding_idx=padding, dtype=dtype
    )
    offsets = torch.tensor([0, 2, 4] if ends else [0, 2])
    if gradients and dtype is torch.bfloat16:
        pytest.skip("torch has no such backward pass in half precision")
    with torch.set_grad_enabled(gradients), set_beside() as beside:
        trained(bag, torch.tensor([1, 2, 3, 3]), offsets)
    assert not beside.wrong, "\n".join(beside.wrong)
    assert not beside.refused


@pytest.mark.parametrize("kinds", [("int32", "int64"), ("int64", "int32"), ("int32", "int32")])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_a_bag_of_embeddings_takes_indices_and_offsets_of_two_kinds(
    set_beside: Any, mode: str, kinds: tuple[str, str]
) -> None:
    """The wider of both is what comes back."""
    indices, offsets = (getattr(torch, kind) for kind in kinds)
    with torch.no_grad(), set_beside() as beside:
        nn.functional.embedding_bag(
            torch.tensor([1, 2, 3], dtype=indices),
            r(5, 4),
            torch.tensor([0, 2], dtype=offsets),
            mode=mode,
        )
    assert not beside.wrong, "\n".join(beside.wrong)


def _mask(length: int) -> Tensor:
    return nn.Transformer.generate_square_subsequent_mask(length)


def _encoder(**how: Any) -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, **how)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


RNN_MODULES = {
    f"{kind}{', both ways' * both}{', batch first' * first}": (
        getattr(nn, kind),
        {"num_layers": 2, "bidirectional": both, "batch_first": first},
    )
    for kind, both, first in itertools.product(["LSTM", "GRU", "RNN"], [False, True], [False, True])
}
Steps = torch.rand(2, 5, 16)
LAYERS: dict[str, Callable[[], Any]] = {
    **{
        name: lambda kind=kind, how=how: trained(kind(16, 8, **how), Steps)
        for name, (kind, how) in RNN_MODULES.items()
    },
    "LSTM, projected": lambda: trained(nn.LSTM(16, 8, proj_size=4), Steps),
    "LSTM, unbatched": lambda: trained(nn.LSTM(16, 8), Steps[0]),
    "LSTM, its state": lambda: trained(nn.LSTM(16, 8), Steps, (r(1, 5, 8), r(1, 5, 8))),
    "LSTM, dropout": lambda: trained(nn.LSTM(16, 8, 2, dropout=0.5), Steps),
    "GRU, half": lambda: trained(nn.GRU(16, 8).bfloat16(), Steps.bfloat16()),
    "cells": lambda: [
        trained(kind(16, 8), Steps[0]) for kind in (nn.LSTMCell, nn.GRUCell, nn.RNNCell)
    ],
    "attention": lambda: trained(nn.MultiheadAttention(16, 2), Steps, Steps, Steps),
    "attention, batch first": lambda: trained(
        nn.MultiheadAttention(16, 2, batch_first=True).eval(), Steps, Steps, Steps
    ),
    "attention, each head": lambda: trained(
        nn.MultiheadAttention(16, 2, batch_first=True).eval(),
        *(Steps,) * 3,
        average_attn_weights=False,
    ),
    "attention, no weights": lambda: trained(
        nn.MultiheadAttention(16, 2, batch_first=True).eval(), *(Steps,) * 3, need_weights=False
    ),
    "attention, masked": lambda: trained(
        nn.MultiheadAttention(16, 2, batch_first=True).eval(), *(Steps,) * 3, attn_mask=_mask(5)
    ),
    "attention, padded": lambda: trained(
        nn.MultiheadAttention(16, 2, batch_first=True).eval(),
        *(Steps,) * 3,
        key_padding_mask=torch.zeros(2, 5, dtype=torch.bool),
    ),
    "attention, wider": lambda: trained(
        nn.MultiheadAttention(16, 2, kdim=8, vdim=4), Steps, r(2, 5, 8), r(2, 5, 4)
    ),
    "attention, zeros and bias": lambda: trained(
        nn.MultiheadAttention(16, 2, add_zero_attn=True, add_bias_kv=True), Steps, Steps, Steps
    ),
    "attention, double": lambda: trained(
        nn.MultiheadAttention(16, 2, batch_first=True).double().eval(), *(Steps.double(),) * 3
    ),
    "encoder, fused": lambda: trained(_encoder().eval(), Steps),
    "encoder, fused, norm first": lambda: trained(_encoder(norm_first=True).eval(), Steps),
    "encoder, fused, masked": lambda: trained(_encoder().eval(), Steps, mask=_mask(5)),
    "encoder, fused, padded": lambda: trained(
        _encoder().eval(), Steps, src_key_padding_mask=torch.zeros(2, 5, dtype=torch.bool)
    ),
    "encoder, gelu": lambda: trained(_encoder(activation="gelu").eval(), Steps),
    "encoder, training": lambda: trained(_encoder(), Steps),
    "decoder": lambda: trained(
        nn.TransformerDecoderLayer(16, 2, 32, batch_first=True), Steps, Steps, tgt_mask=_mask(5)
    ),
    "transformer": lambda: trained(nn.Transformer(16, 2, 1, 1, 32), Steps, Steps),
}


@pytest.mark.parametrize("gradients", [False, True], ids=["alone", "backward"])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore")
def test_a_layer_gives_what_its_shapes_foretell(
    set_beside: Any, name: str, gradients: bool
) -> None:
    """Recurrent layers and attention, on the fused paths and on the plain ones."""
    with torch.set_grad_enabled(gradients), set_beside() as beside:
        LAYERS[name]()
    assert not beside.wrong, "\n".join(beside.wrong)
    # Only oneDNN knows what an LSTM keeps for its backward pass.
    keeps = {"aten::mkldnn_rnn_layer"} if gradients and name.startswith("LSTM") else set()
    # Asked of a small mask, whose values a trace knows.
    assert beside.refused <= keeps | {"aten::_local_scalar_dense", "aten::equal"}


OPTIMISERS = [
    "SGD",
    "Adam",
    "AdamW",
    "RMSprop",
    "Adagrad",
    "Adadelta",
    "NAdam",
    "RAdam",
    "Adamax",
    "ASGD",
    "Rprop",
    "Adafactor",
    "Muon",
]


@pytest.mark.parametrize("how", [{}, {"foreach": True}, {"foreach": False}], ids=str)
@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.filterwarnings("ignore")
def test_a_step_of_an_optimiser_gives_what_its_shapes_foretell(
    set_beside: Any, name: str, how: dict[str, bool]
) -> None:
    """The first step, that makes the state, and the second."""
    if name == "Muon" and how:
        pytest.skip("Muon has one way only")
    weights = [nn.Parameter(r(4, 4)), nn.Parameter(r(4, 2))]
    optimiser = getattr(torch.optim, name)(weights, lr=0.1, **how)
    for weight in weights:
        weight.grad = r(weight.shape)
    with set_beside() as beside:
        optimiser.step()
        optimiser.step()
    assert not beside.wrong, "\n".join(beside.wrong)
    assert beside.refused <= {"aten::_local_scalar_dense"}  # of a count of steps, which is known


@pytest.mark.parametrize("how", ["momentum", "fused", "amsgrad"])
def test_other_ways_to_step_give_what_their_shapes_foretell(set_beside: Any, how: str) -> None:
    """Momentum, a fused kernel, and one more moment."""
    weight = nn.Parameter(r(4, 4))
    weight.grad = r(4, 4)
    optimiser: torch.optim.Optimizer
    if how == "momentum":
        optimiser = torch.optim.SGD([weight], lr=0.1, momentum=0.9, nesterov=True)
    else:
        optimiser = torch.optim.AdamW([weight], **{how: True})
    with set_beside() as beside:
        optimiser.step()
        optimiser.step()
    assert not beside.wrong, "\n".join(beside.wrong)


OUT_FORMS: dict[str, Callable[[], Any]] = {
    "mul": lambda: torch.mul(r(3, 4), 2, out=torch.empty(3, 4)),
    "add, wider": lambda: torch.add(r(3, 4), 1, out=torch.empty(3, 4, dtype=torch.float64)),
    "mm": lambda: torch.mm(r(3, 4), r(4, 2), out=torch.empty(3, 2)),
    "cat": lambda: torch.cat([r(3, 4), r(3, 4)], out=torch.empty(6, 4)),
    "max": lambda: torch.max(r(3, 4), 1, out=(torch.empty(3), torch.empty(3, dtype=torch.long))),
    "a part": lambda: torch.neg(r(3, 2), out=torch.empty(3, 4)[:, ::2]),
}


@pytest.mark.parametrize("name", OUT_FORMS)
def test_an_out_form_gives_back_what_it_was_handed(set_beside: Any, name: str) -> None:
    """The tensor itself is what comes back."""
    with torch.no_grad(), set_beside() as beside:
        OUT_FORMS[name]()
    assert not beside.wrong, "\n".join(beside.wrong)
    assert not beside.refused


def test_an_out_form_that_has_to_grow_has_no_answer(set_beside: Any) -> None:
    """A trace does not resize what was there before."""
    with torch.no_grad(), set_beside() as beside, pytest.warns(UserWarning, match="resized"):
        torch.mul(r(3, 4), 2, out=torch.empty(2))
    assert beside.refused == {"aten::mul.out"}
