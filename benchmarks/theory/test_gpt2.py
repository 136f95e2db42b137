"""GPT-2 small against a published count of its FLOPs, and against the estimate of Kaplan et al.

nanoGPT (github.com/karpathy/nanoGPT, transformer_sizing.ipynb) prints `forward_total` 291648307200 for
a context of 1024, at two FLOP a multiply-accumulate and causal attention as the full square.
"""

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel

import pytest_nnscale

from .gpt2 import CONTEXT, INNER, LAYERS, WIDTH, WORDS, workload


@pytest.mark.max_params("124.5M")
@pytest.mark.max_flops(291_648_307_200)
def test_published_figures(nnscale):
    """Parameters are those of the released weights, and FLOPs the published ones, to the last."""
    model, args = workload()
    logits = nnscale(model, *args)
    assert logits.shape == (1, CONTEXT, WORDS)
    profile = pytest_nnscale.profile(model, args=args)
    assert profile.uncounted == ()
    assert profile.params == 124_439_808
    assert profile.flops == 291_648_307_200


def test_parameters_are_the_closed_form():
    """The output layer shares the embedding's weight, which counts once."""
    embeddings = (WORDS + CONTEXT) * WIDTH
    attention = 4 * (WIDTH * WIDTH + WIDTH)
    feed_forward = 2 * WIDTH * INNER + INNER + WIDTH
    model, _ = workload()
    layers = LAYERS * (attention + feed_forward + 4 * WIDTH)
    assert pytest_nnscale.profile(model).params == embeddings + layers + 2 * WIDTH


@pytest.mark.parametrize("context", [128, CONTEXT])
def test_kaplan_estimate_leaves_two_products_out(context):
    """Per token, Kaplan's estimate is our count less the output layer and half of the attention.

    Kaplan et al., "Scaling Laws for Neural Language Models" (arXiv:2001.08361), section 2.1:
    2N + 2 n_layer n_ctx d_model, with N = 12 n_layer d_model^2 parameters outside of embeddings.
    """
    parameters = 12 * LAYERS * WIDTH**2
    estimate = 2 * parameters + 2 * LAYERS * context * WIDTH
    output_layer = 2 * WIDTH * WORDS
    values = 2 * LAYERS * context * WIDTH  # scores by values; the estimate has queries by keys
    model, args = workload(context)
    per_token = pytest_nnscale.profile(model, args=args).flops / context
    assert per_token == estimate + values + output_layer


def test_training_is_three_times_the_work():
    """A forward and a backward pass come to the `total` that nanoGPT prints, to the last FLOP.

    It takes the scores to be kept; a fused kernel computes them again on the way back.
    """
    model, args = workload()
    with sdpa_kernel(SDPBackend.MATH):
        profile = pytest_nnscale.profile(model, args=args, phase="training")
    assert profile.flops == 874_944_921_600
