"""BERT base against the two counts that are published of its forward pass at 128 tokens.

MobileBERT (Sun et al., arXiv:2004.02984, table 4) and TinyBERT (Jiao et al., arXiv:1909.10351, table 1)
give 109M parameters and 22.5B FLOPs: matrix products at two FLOP a multiply-accumulate, and
softmax, GELU and layer norms on top. ELECTRA (Clark et al., arXiv:2003.10555, table 1) gives 110M and
2.9e10: it counts embeddings as products with one-hot vectors and runs a classifier's hidden layer
on every token (flops_computation.py, google-research/electra).
"""

import pytest

import pytest_nnscale

from .bert import INNER, LAYERS, POSITIONS, SEGMENTS, WIDTH, WORDS, workload


def closed_form_params() -> int:
    """Embeddings, then per layer four projections, two feed-forward layers and two norms."""
    embeddings = (WORDS + POSITIONS + SEGMENTS) * WIDTH + 2 * WIDTH
    attention = 4 * (WIDTH * WIDTH + WIDTH)
    feed_forward = 2 * WIDTH * INNER + INNER + WIDTH
    return embeddings + LAYERS * (attention + feed_forward + 4 * WIDTH) + WIDTH * WIDTH + WIDTH


def closed_form_flops(length: int) -> int:
    """Every weight of a layer once per token, scores and values per pair of tokens, the pooler."""
    weights = 2 * length * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER)
    pairs = 2 * 2 * length * length * WIDTH
    return LAYERS * (weights + pairs) + 2 * WIDTH * WIDTH


@pytest.mark.max_params("109.5M")
@pytest.mark.max_flops({"128": "22.5 GFLOP", "512": "97 GFLOP"})
@pytest.mark.parametrize("length", [128, 512], ids=str)
def test_closed_form(nnscale, length):
    """Parameters are those of bert-base-uncased, and FLOPs those of its matrix products."""
    model, args = workload(length)
    states, pooled = nnscale(model, *args)
    assert (states.shape, pooled.shape) == ((1, length, WIDTH), (1, WIDTH))
    profile = pytest_nnscale.profile(model, args=args)
    assert profile.uncounted == ()
    assert profile.params == closed_form_params() == 109_482_240
    assert profile.flops == closed_form_flops(length)


def test_published_with_activations():
    """The 22.5B of MobileBERT and TinyBERT are FLOPs, not MACs, and under 1 % above ours.

    What it has on top is no matrix product, which this package leaves out.
    """
    model, args = workload()
    profile = pytest_nnscale.profile(model, args=args)
    assert round(profile.params / 1e6) == 109
    assert 0.99 * 22.5e9 < profile.flops < 22.5e9


def test_published_with_dense_embeddings():
    """With one-hot embeddings and the classifier counted too, it is ELECTRA's figure to the digit."""
    model, args = workload()
    tokens = 128
    one_hot = 2 * tokens * WORDS * WIDTH + 2 * tokens * (tokens + SEGMENTS) * WIDTH
    classifier = 2 * tokens * WIDTH * WIDTH
    profile = pytest_nnscale.profile(model, args=args)
    assert f"{profile.flops + one_hot + classifier:.1e}" == "2.9e+10"


def test_distilbert_is_what_is_left():
    """Without segments, pooler and every other layer it is DistilBERT, with its published 66M.

    Sanh et al., "DistilBERT, a distilled version of BERT" (arXiv:1910.01108), section 2 and table 3.
    """
    model, args = workload()
    rows = {row.path: row for row in pytest_nnscale.profile(model, args=args).modules}
    dropped = ["segments", "pooler", *(f"encoder.layers.{layer}" for layer in range(0, LAYERS, 2))]
    params = rows[""].total_params - sum(rows[path].total_params for path in dropped)
    flops = rows[""].total_flops - sum(rows[path].total_flops for path in dropped)
    assert params == 66_362_880
    assert 2 * flops == closed_form_flops(128) - 2 * WIDTH * WIDTH
