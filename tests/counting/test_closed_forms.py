"""Layers and functions whose FLOPs have a closed form, written out here; 1 MAC = 2 FLOP."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's name

import pytest_nnscale

B, L, S, E, H, V = 2, 5, 7, 8, 2, 6  # batch, targets, sources, width, heads, width of values
A = 2 * B * L * S  # one number of every score


def heads(length, width=E // H, batch=B, count=H):
    return torch.randn(batch, count, length, width)


def encoder_layer(length):
    """Four projections, two products with the scores, two layers of four times... of 16."""
    return 2 * B * length * (4 * E * E + 2 * E * 16) + 2 * 2 * B * length * length * E


def quantised(layer, *sizes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(layer)
        return torch.ao.quantization.quantize_dynamic(model, {type(layer)})


class Attention(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.inner = nn.MultiheadAttention(E, H, batch_first=True, **options)

    def forward(self, query, source):
        return self.inner(query, source, source)[0]


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(E, H, batch_first=True)

    def forward(self, x):
        return self.inner(x, x, x, need_weights=False)[0]


# What is called, with what, and its FLOPs.
FORMS = {
    "linear": (nn.Linear(8, 4), (torch.randn(3, 8),), 2 * 3 * 8 * 4),
    "linear of a vector": (nn.Linear(8, 4), (torch.randn(8),), 2 * 8 * 4),
    "linear without bias": (nn.Linear(8, 4, bias=False), (torch.randn(2, 3, 8),), 2 * 6 * 8 * 4),
    "mm": (torch.mm, (torch.randn(2, 3), torch.randn(3, 4)), 2 * 2 * 3 * 4),
    "mv": (torch.mv, (torch.randn(2, 3), torch.randn(3)), 2 * 2 * 3),
    "addmv": (torch.addmv, (torch.randn(2), torch.randn(2, 3), torch.randn(3)), 2 * 2 * 3),
    "dot": (torch.dot, (torch.randn(9), torch.randn(9)), 2 * 9),
    "vdot": (torch.vdot, (torch.randn(9), torch.randn(9)), 2 * 9),
    "inner": (torch.inner, (torch.randn(4, 9), torch.randn(3, 9)), 2 * 4 * 3 * 9),
    "addr": (torch.addr, (torch.randn(3, 4), torch.randn(3), torch.randn(4)), 2 * 3 * 4),
    "bmm": (torch.bmm, (torch.randn(5, 2, 3), torch.randn(5, 3, 4)), 2 * 5 * 2 * 3 * 4),
    "baddbmm": (
        torch.baddbmm,
        (torch.randn(5, 2, 4), torch.randn(5, 2, 3), torch.randn(5, 3, 4)),
        2 * 5 * 2 * 3 * 4,
    ),
    "addbmm": (
        torch.addbmm,
        (torch.randn(2, 4), torch.randn(5, 2, 3), torch.randn(5, 3, 4)),
        2 * 5 * 2 * 3 * 4,
    ),
    "broadcast matmul": (torch.matmul, (torch.randn(5, 2, 3), torch.randn(3, 4)), 2 * 10 * 3 * 4),
    "einsum": (
        lambda a, b: torch.einsum("bij,kj->bik", a, b),
        (torch.randn(2, 3, 4), torch.randn(5, 4)),
        2 * 2 * 3 * 4 * 5,
    ),
    "tensordot": (
        lambda a, b: torch.tensordot(a, b, dims=2),
        (torch.randn(2, 3, 4), torch.randn(3, 4, 5)),
        2 * 2 * 12 * 5,
    ),
    "multi_dot": (  # (a b) c is the cheaper order
        lambda a, b, c: torch.linalg.multi_dot([a, b, c]),
        (torch.randn(2, 10), torch.randn(10, 3), torch.randn(3, 20)),
        2 * 2 * 10 * 3 + 2 * 2 * 3 * 20,
    ),
    "matrix_power": (lambda a: torch.linalg.matrix_power(a, 4), (torch.randn(3, 3),), 2 * 2 * 27),
    "int8 product": (
        torch._int_mm,
        (torch.ones(32, 16, dtype=torch.int8), torch.ones(16, 8, dtype=torch.int8)),
        2 * 32 * 16 * 8,
    ),
    "complex product": (
        torch.mm,
        (torch.randn(2, 3, dtype=torch.cfloat), torch.randn(3, 4, dtype=torch.cfloat)),
        4 * 2 * 2 * 3 * 4,
    ),
    "conv1d": (nn.Conv1d(3, 4, 3), (torch.randn(2, 3, 9),), 2 * 2 * 4 * 7 * 3 * 3),
    "conv2d": (nn.Conv2d(3, 4, 3), (torch.randn(2, 3, 9, 9),), 2 * 2 * 4 * 49 * 3 * 9),
    "conv3d": (nn.Conv3d(3, 4, 3), (torch.randn(1, 3, 5, 5, 5),), 2 * 4 * 27 * 3 * 27),
    "strided conv": (
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        (torch.randn(1, 3, 9, 9),),
        2 * 4 * 25 * 3 * 9,
    ),
    "dilated conv": (
        nn.Conv2d(3, 4, 3, dilation=2),
        (torch.randn(1, 3, 9, 9),),
        2 * 4 * 25 * 3 * 9,
    ),
    "grouped conv": (nn.Conv2d(4, 8, 3, groups=2), (torch.randn(1, 4, 9, 9),), 2 * 8 * 49 * 2 * 9),
    "depthwise conv": (nn.Conv2d(4, 4, 3, groups=4), (torch.randn(1, 4, 9, 9),), 2 * 4 * 49 * 9),
    "transposed conv": (
        nn.ConvTranspose2d(3, 4, 3, stride=2),
        (torch.randn(1, 3, 5, 5),),
        2 * 3 * 25 * 4 * 9,
    ),
    "grouped transposed conv": (
        nn.ConvTranspose2d(4, 8, 3, groups=2),
        (torch.randn(1, 4, 5, 5),),
        2 * 4 * 25 * 4 * 9,
    ),
    "conv_tbc": (
        torch.conv_tbc,
        (torch.randn(9, 2, 3), torch.randn(3, 3, 4), torch.randn(4)),
        2 * 7 * 2 * 4 * 9,
    ),
    "attention": (
        F.scaled_dot_product_attention,
        (heads(L), heads(S), heads(S)),
        2 * A * E,
    ),
    "attention, other values": (
        F.scaled_dot_product_attention,
        (heads(L), heads(S), heads(S, V)),
        A * E + A * H * V,
    ),
    "grouped queries": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        (heads(L, count=4), heads(S), heads(S)),
        2 * 2 * B * 4 * L * S * (E // H),
    ),
    "causal attention": (
        lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True),
        (heads(L),),
        2 * 2 * B * L * L * E,
    ),
    "self-attention, fused": (
        SelfAttention().eval(),
        (torch.randn(B, L, E),),
        2 * B * L * 4 * E * E + 2 * 2 * B * L * L * E,
    ),
    "cross-attention": (
        Attention(),
        (torch.randn(B, L, E), torch.randn(B, S, E)),
        2 * B * (2 * L + 2 * S) * E * E + 2 * A * E,
    ),
    "cross-attention, other widths": (
        Attention(kdim=3, vdim=3),
        (torch.randn(B, L, E), torch.randn(B, S, 3)),
        2 * B * 2 * L * E * E + 2 * B * 2 * S * 3 * E + 2 * A * E,
    ),
    "encoder layer, fused": (
        nn.TransformerEncoderLayer(E, H, 16, batch_first=True).eval(),
        (torch.randn(B, L, E),),
        encoder_layer(L),
    ),
    "encoder layer, training": (
        nn.TransformerEncoderLayer(E, H, 16, batch_first=True),
        (torch.randn(B, L, E),),
        encoder_layer(L),
    ),
    "encoder": (
        nn.TransformerEncoder(
            nn.TransformerEncoderLayer(E, H, 16, batch_first=True), 3, enable_nested_tensor=False
        ).eval(),
        (torch.randn(B, L, E),),
        3 * encoder_layer(L),
    ),
    "decoder layer": (
        nn.TransformerDecoderLayer(E, H, 16, batch_first=True).eval(),
        (torch.randn(B, L, E), torch.randn(B, S, E)),
        encoder_layer(L) + 2 * B * (2 * L + 2 * S) * E * E + 2 * A * E,
    ),
    "LSTM": (nn.LSTM(3, 4), (torch.randn(5, 2, 3),), 2 * 5 * 2 * 4 * 4 * (3 + 4)),
    "GRU": (nn.GRU(3, 4), (torch.randn(5, 2, 3),), 2 * 5 * 2 * 3 * 4 * (3 + 4)),
    "RNN": (nn.RNN(3, 4), (torch.randn(5, 2, 3),), 2 * 5 * 2 * 4 * (3 + 4)),
    "LSTM cell": (nn.LSTMCell(3, 4), (torch.randn(2, 3),), 2 * 2 * 4 * 4 * (3 + 4)),
    "GRU cell": (nn.GRUCell(3, 4), (torch.randn(2, 3),), 2 * 2 * 3 * 4 * (3 + 4)),
    "dynamic quantised linear": (quantised(nn.Linear(8, 4)), (torch.randn(3, 8),), 2 * 3 * 8 * 4),
    "dynamic quantised LSTM": (
        quantised(nn.LSTM(3, 4)),
        (torch.randn(5, 2, 3),),
        2 * 5 * 2 * 4 * 4 * (3 + 4),
    ),
    "sparse product": (
        lambda b: torch.eye(6).to_sparse_csr() @ b,
        (torch.randn(6, 4),),
        2 * 6 * 4,
    ),
    "cdist by a product": (
        torch.cdist,
        (torch.randn(30, 3), torch.randn(40, 3)),
        2 * 30 * 40 * (3 + 2),
    ),
    "fft": (torch.fft.fft, (torch.randn(3, 16, dtype=torch.cfloat),), 3 * 5 * 16 * 4),
    "rfft": (torch.fft.rfft, (torch.randn(3, 16),), 3 * 5 * 16 * 4 // 2),
    "fft2": (torch.fft.fft2, (torch.randn(8, 16, dtype=torch.cfloat),), 5 * 128 * 7),
    "cholesky": (torch.linalg.cholesky, (torch.eye(6).expand(2, 6, 6),), 2 * 6**3 // 3),
    "lu": (torch.linalg.lu_factor, (torch.randn(6, 6),), 2 * 6**3 // 3),
    "solve": (
        torch.linalg.solve,
        (torch.eye(6), torch.randn(6, 4)),
        2 * 6**3 // 3 + 2 * 6 * 6 * 4,
    ),
    "inverse": (torch.linalg.inv, (torch.eye(6),), 2 * 6**3),
    "determinant": (torch.linalg.det, (torch.eye(6),), 2 * 6**3 // 3),
    "triangular solve": (
        lambda a, b: torch.linalg.solve_triangular(a, b, upper=True),
        (torch.eye(6), torch.randn(6, 4)),
        6 * 6 * 4,
    ),
    "qr": (  # Householder, then the columns of Q
        torch.linalg.qr,
        (torch.randn(9, 3),),
        math.ceil(2 * 9 * 9 - 18) + (4 * 9 * 3 * 3 - 2 * 12 * 9 + 36),
    ),
    "embedding": (nn.Embedding(10, 4), (torch.tensor([1, 2]),), 0),
    "norms and pooling": (
        nn.Sequential(nn.BatchNorm2d(3), nn.GroupNorm(1, 3), nn.AvgPool2d(2), nn.GELU()),
        (torch.randn(2, 3, 8, 8),),
        0,
    ),
}


def flops(name, phase="inference"):
    model, inputs, _ = FORMS[name]
    found = pytest_nnscale.profile(model, inputs, phase=phase, metrics=("flops",))
    assert found.uncounted == (), found.uncounted
    return found.flops


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in FORMS if FORMS[name][2] is not None])
def test_the_count_is_the_closed_form(name):
    """To the last FLOP, whatever path the layer takes."""
    assert flops(name) == FORMS[name][2]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in FORMS if FORMS[name][2] is not None])
def test_the_count_is_the_same_in_inference_mode(name):
    """Where composite operators are seen whole."""
    model, inputs, expected = FORMS[name]
    with torch.inference_mode(), pytest_nnscale.count() as counting:
        model(*inputs)
    assert counting.profile.uncounted == ()
    assert counting.profile.flops == expected


@pytest.mark.parametrize(
    ("name", "times"),
    [
        # The input needs no gradient, so that the first layer has one product backward.
        ("linear", 2),
        ("conv1d", 2),
        ("conv2d", 2),
        ("grouped conv", 2),
        ("depthwise conv", 2),
        ("transposed conv", 2),
        ("grouped transposed conv", 2),
    ],
)
def test_training_adds_the_gradient_of_the_weights(name, times):
    """As many products as the forward has, each once more."""
    assert flops(name, "training") == times * FORMS[name][2]


@pytest.mark.parametrize("name", ["linear", "conv2d", "grouped conv", "transposed conv"])
def test_training_adds_the_gradient_of_an_input_that_needs_one(name):
    """Three times the forward in all."""
    model, (x,), expected = FORMS[name]
    x = x.clone().requires_grad_()
    found = pytest_nnscale.profile(model, (x,), phase="training", metrics=("flops",))
    assert found.flops == 3 * expected
