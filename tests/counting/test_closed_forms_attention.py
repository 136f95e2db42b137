"""Attention: two products with every score, in the backward four, and a fifth where it is fused.

Fused kernels keep no scores, and compute them once more in the backward.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's name
from torch.nn.attention import SDPBackend, sdpa_kernel

import pytest_nnscale
from pytest_nnscale.counting.formulas import formula_for

B, L, S, E, H, I = 2, 5, 7, 8, 2, 16  # noqa: E741 - batch, targets, sources, width, heads, inner
W = E // H
attend = F.scaled_dot_product_attention


def one(width=W, *, heads=H, targets=L, sources=S):
    """One product of all scores with numbers of a width."""
    return 2 * B * heads * targets * sources * width


def of_heads(length, width=W, count=H, **options):
    return torch.randn(B, count, length, width, **options)


def flops(model, *inputs, phase="inference"):
    if phase == "training":
        inputs = [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
    found = pytest_nnscale.profile(model, inputs, phase=phase, metrics=("flops",))
    assert found.uncounted == (), found.uncounted
    return found.flops


def dropping(q, k, v):
    return attend(q, k, v, dropout_p=0.5)


def masked(q, k, v, mask):
    return attend(q, k, v, attn_mask=mask)


def shared(q, k, v):
    return attend(q, k, v, enable_gqa=True)


def causal(q, k, v):
    return attend(q, k, v, is_causal=True)


QKV = of_heads(L), of_heads(S), of_heads(S)
SDPA = {
    # What is called, with what, one product with the keys, one with the values, whether fused.
    "plain": (attend, QKV, one(), one(), True),
    "half precision": (attend, [x.bfloat16() for x in QKV], one(), one(), True),
    "double precision": (attend, [x.double() for x in QKV], one(), one(), True),
    "without heads": (
        attend,
        (torch.randn(B, L, W), torch.randn(B, S, W), torch.randn(B, S, W)),
        one(heads=1),
        one(heads=1),
        True,
    ),
    "causal": (causal, [of_heads(L)] * 3, one(sources=L), one(sources=L), True),
    "masked": (masked, (*QKV, torch.ones(L, S, dtype=torch.bool)), one(), one(), True),
    "dropout": (dropping, QKV, one(), one(), False),
    "wider values": (attend, (*QKV[:2], of_heads(S, 6)), one(), one(6), False),
    "grouped queries": (
        shared,
        (of_heads(L, count=6), *QKV[1:]),
        one(heads=6),
        one(heads=6),
        True,
    ),
    "one head of keys": (
        shared,
        (of_heads(L, count=6), of_heads(S, count=1), of_heads(S, count=1)),
        one(heads=6),
        one(heads=6),
        True,
    ),
}


@pytest.mark.parametrize("name", SDPA)
def test_scaled_dot_product_attention(name):
    """Masks leave the full square; grouped queries each meet the key head that they share."""
    model, inputs, with_keys, with_values, fused = SDPA[name]
    forward = with_keys + with_values
    assert flops(model, *inputs) == forward
    backward = 2 * with_keys + 2 * with_values + (with_keys if fused else 0)
    assert flops(model, *inputs, phase="training") == forward + backward


@pytest.mark.parametrize(
    ("backend", "products"), [(SDPBackend.MATH, 6), (SDPBackend.FLASH_ATTENTION, 7)]
)
def test_what_a_kernel_computes_twice_is_counted_twice(backend, products):
    """The fused backward starts with the scores."""

    def through(*inputs):
        with sdpa_kernel(backend):
            return attend(*inputs)

    assert flops(through, *QKV) == 2 * one()
    assert flops(through, *QKV, phase="training") == products * one()


def on_meta(*shape):
    return torch.empty(shape, device="meta", dtype=torch.float16)


def counted(operator, *args):
    with pytest_nnscale.count() as counting:
        out = operator(*args)
    assert counting.profile.uncounted == ()
    return counting.profile.flops, out


@pytest.mark.parametrize(
    ("kernel", "heads", "values"),
    [
        (kernel, heads, values)
        for kernel in ("flash", "efficient", "cudnn")
        for heads, values in ((4, 8), (2, 8), (4, 16), (1, 16))
        if kernel != "flash" or values == 8  # which has one width for all
    ],
)
def test_kernels_of_gpus(kernel, heads, values):
    """Forward and backward, with keys shared by groups of queries, and values of another width."""
    aten = torch.ops.aten
    q, k, v = on_meta(B, 4, 16, 8), on_meta(B, heads, 32, 8), on_meta(B, heads, 32, values)
    with_keys = one(8, heads=4, targets=16, sources=32)
    with_values = one(values, heads=4, targets=16, sources=32)
    bias = () if kernel == "flash" else (None, True)
    forward = getattr(aten, f"_scaled_dot_product_{kernel}_attention").default
    found, out = counted(forward, q, k, v, *bias)
    assert found == with_keys + with_values
    gradient = torch.empty_like(out[0])
    if kernel == "flash":
        args = (gradient, q, k, v, *out[:6], 0.0, False, *out[6:8])
    elif kernel == "efficient":
        args = (gradient, q, k, v, None, *out[:4], 0.0, [True, True, True, False])
    else:
        args = (gradient, q, k, v, *out[:2], *out[6:8], None, *out[2:6], 0.0, False)
    backward = getattr(aten, f"_scaled_dot_product_{kernel}_attention_backward").default
    assert counted(backward, *args)[0] == 3 * with_keys + 2 * with_values


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("values", [W, 6])
def test_flex_attention(heads, values):
    """Whatever is done to a score, it meets both; its backward has the scores once more."""
    from torch.nn.attention.flex_attention import flex_attention

    inputs = of_heads(L), of_heads(S, count=heads), of_heads(S, values, count=heads)
    with_keys, with_values = one(), one(values)
    for change in (None, lambda score, *_: score * 2):
        found = flops(lambda *x: flex_attention(*x, score_mod=change, enable_gqa=True), *inputs)  # noqa: B023
        assert found == with_keys + with_values
    backward = formula_for(torch.ops.higher_order.flex_attention_backward)
    out, lse = of_heads(L, values), torch.randn(B, H, L)
    assert backward(*inputs, out, lse, out, None) == 3 * with_keys + 2 * with_values


@pytest.mark.filterwarnings("ignore")
def test_flex_attention_with_blocks_left_out_is_the_full_square():
    """What a block mask leaves out is the kernel's affair."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    inputs = of_heads(128), of_heads(128), of_heads(128)
    mask = create_block_mask(lambda _b, _h, i, j: i >= j, None, None, 128, 128, device="cpu")
    found = flops(lambda *x: flex_attention(*x, block_mask=mask), *inputs)
    assert found == 2 * one(targets=128, sources=128)


def test_sequences_of_many_lengths():
    """Each sequence meets its own keys alone, as many as it uses of a cache."""
    pytest.importorskip("torch.nn.attention.varlen")
    operators = torch.ops.torch_attn
    q, k, v = (torch.empty(n, H, W, device="meta") for n in (7, 9, 9))
    ends, key_ends = torch.tensor([0, 3, 7]), torch.tensor([0, 4, 9])
    product = 2 * H * (3 * 4 + 4 * 5) * W
    forward = formula_for(operators._varlen_attn.default)
    assert forward(q, k, v, ends, key_ends, 4, 5, out_val=None) == 2 * product
    cached = {"seqused_k": torch.tensor([4, 5]), "out_val": None}
    assert forward(q, k, v, ends, None, 4, 5, **cached) == 2 * product
    into = formula_for(operators._varlen_attn_out.default)
    assert into(q, q, k, v, ends, key_ends, 4, 5, out_val=None) == 2 * product
    backward = formula_for(operators._varlen_attn_backward.default)
    assert backward(q, q, k, v, q, None, ends, key_ends, 4, 5, out_val=None) == 5 * product


class Attention(nn.Module):
    def __init__(self, *, weights, **options):
        super().__init__()
        self.inner = nn.MultiheadAttention(E, H, batch_first=True, **options)
        self.weights = weights

    def forward(self, query, source):
        return self.inner(query, source, source, need_weights=self.weights)[0]


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("width", [E, 3])
@pytest.mark.parametrize("extra", [{}, {"add_bias_kv": True}, {"add_zero_attn": True}])
def test_multi_head_attention(weights, width, extra):
    """Four projections, and attention to each source and each row that an option adds."""
    model = Attention(weights=weights, kdim=width, vdim=width, **extra).eval()
    projections = 2 * B * (2 * L * E * E + 2 * S * width * E)
    product = one(sources=S + len(extra))
    inputs = torch.randn(B, L, E), torch.randn(B, S, width)
    assert flops(model, *inputs) == projections + 2 * product
    # The weights that are returned have to be there: that path is not fused.
    found = flops(model, *inputs, phase="training")
    assert found == 3 * projections + (6 if weights else 7) * product


def encoder_layer(lengths):
    """Products of weights with numbers, and one product of the scores, of sequences."""
    return 2 * sum(lengths) * (4 * E * E + 2 * E * I), 2 * sum(n * n for n in lengths) * E


@pytest.mark.filterwarnings("ignore")
class TestTransformers:
    """Encoders and decoders, on their fast path and off it."""

    @pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"activation": "gelu"}])
    def test_encoder_layer(self, options):
        """One operator without gradients; its parts with them."""
        layer = nn.TransformerEncoderLayer(E, H, I, batch_first=True, **options).eval()
        dense, product = encoder_layer([L] * B)
        x = torch.randn(B, L, E)
        assert flops(layer, x) == dense + 2 * product
        assert flops(layer, x, phase="training") == 3 * dense + 7 * product
        # Dropout of scores is not fused.
        assert flops(layer.train(), x, phase="training") == 3 * dense + 6 * product

    @pytest.mark.parametrize("nested", [True, False])
    def test_encoder_with_padding(self, nested):
        """The fast path packs the sequences, and the other one computes what is masked, too."""
        model = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(E, H, I, batch_first=True), 3, enable_nested_tensor=nested
        ).eval()
        padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
        x = torch.randn(B, L, E)
        dense, product = encoder_layer([5, 3] if nested else [5, 5])
        with_padding = flops(lambda x, mask: model(x, src_key_padding_mask=mask), x, padding)
        assert with_padding == 3 * (dense + 2 * product)
        dense, product = encoder_layer([5, 5])
        assert flops(model, x) == 3 * (dense + 2 * product)
        assert flops(model, x, phase="training") == 3 * (3 * dense + 7 * product)

    def test_decoder_and_transformer(self):
        """A decoder layer is an encoder layer and attention to the sources."""
        x, source = torch.randn(B, L, E), torch.randn(B, S, E)
        dense, product = encoder_layer([L] * B)
        cross = 2 * B * (2 * L + 2 * S) * E * E
        decoder = dense + cross, product + one()
        layer = nn.TransformerDecoderLayer(E, H, I, batch_first=True)
        model = nn.TransformerDecoder(layer, 2).eval()
        assert flops(model, x, source) == 2 * (decoder[0] + 2 * decoder[1])
        found = flops(model, x, source, phase="training")
        assert found == 2 * (3 * decoder[0] + 7 * decoder[1])
        both = nn.Transformer(E, H, 1, 1, I, batch_first=True).eval()
        encoder = encoder_layer([S] * B)
        assert flops(both, source, x) == sum(encoder) + encoder[1] + decoder[0] + 2 * decoder[1]
        found = flops(both, source, x, phase="training")
        assert found == 3 * (encoder[0] + decoder[0]) + 7 * (encoder[1] + decoder[1])

    def test_nested_self_attention(self):
        """Each sequence attends to itself alone, and only its own steps are projected."""
        attention = nn.MultiheadAttention(E, H, batch_first=True).eval()
        x = torch.nested.nested_tensor([torch.randn(n, E) for n in (2, 3)])
        found = flops(lambda x: attention(x, x, x, need_weights=False)[0], x)
        assert found == 2 * 5 * 4 * E * E + 2 * 2 * (2 * 2 + 3 * 3) * E
