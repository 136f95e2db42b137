"""What pruning, quantisation and distillation buy of one encoder, to the last byte and FLOP.

Zeros save nothing that runs dense: masks double what is stored, and work stays the same. What removes
rows and layers saves all of it; what stores fewer bits saves bytes alone.
"""

import pytest
import torch

import pytest_nnscale
from pytest_nnscale.meters.params import measure_params

from .compression import (
    CLASSES,
    INNER,
    LAYERS,
    LENGTH,
    VARIANTS,
    WIDTH,
    encoder,
    masked,
    quantised,
)


def weights(layers: int = LAYERS, inner: int = INNER) -> int:
    """Four projections and two feed-forward matrices in each layer, and the classifier's."""
    return layers * (4 * WIDTH**2 + 2 * WIDTH * inner) + WIDTH * CLASSES


def params(layers: int = LAYERS, inner: int = INNER) -> int:
    """The weights, a bias for every output of theirs, and two norms in each layer."""
    return weights(layers, inner) + layers * (5 * WIDTH + inner + 4 * WIDTH) + CLASSES


def nonzero(layers: int = LAYERS, inner: int = INNER) -> int:
    """All but the biases of the norms, which start at zero."""
    return params(layers, inner) - layers * 2 * WIDTH


def flops(layers: int = LAYERS, inner: int = INNER) -> int:
    """Each weight once per position, scores and values per pair, the classifier once."""
    matrices = 2 * LENGTH * (4 * WIDTH**2 + 2 * WIDTH * inner)
    return layers * (matrices + 2 * 2 * LENGTH**2 * WIDTH) + 2 * WIDTH * CLASSES


def activations(inner: int = INNER) -> int:
    """Numbers alive beside the weights at the peak, which is in a layer after the first.

    The sequence handed over, what came into the layer, and with attention added; then the inner
    units before and after GELU. With few of them the peak is in attention instead: the first two,
    the norm's output, queries, keys, values, what attention mixed, and the last projection.
    """
    return LENGTH * max(3 * WIDTH + 2 * inner, 8 * WIDTH)


HALVED = weights() // 2
# After the last layer but one ends, all masked weights but the classifier's are there again, dense.
DENSE_AGAIN = weights() - WIDTH * CLASSES
WHILE_NARROWING = LENGTH * (4 * WIDTH + INNER)

# Parameters, those that are not zero (None: not from shapes alone), bytes, FLOP, bytes at the peak.
EXPECTED = {
    "float32": (params(), nonzero(), 4 * params(), flops(), 4 * (params() + activations())),
    "half of the weights masked": (
        params(),
        nonzero() - HALVED,
        4 * (params() + weights()),
        flops(),
        4 * (params() + weights() + DENSE_AGAIN + WHILE_NARROWING),
    ),
    "half of the weights zero": (
        params(),
        nonzero() - HALVED,
        4 * params(),
        flops(),
        4 * (params() + activations()),
    ),
    "half of the inner units out": (
        params(inner=INNER // 2),
        nonzero(inner=INNER // 2),
        4 * params(inner=INNER // 2),
        flops(inner=INNER // 2),
        4 * (params(inner=INNER // 2) + activations(INNER // 2)),
    ),
    "bfloat16": (params(), nonzero(), 2 * params(), flops(), 2 * (params() + activations())),
    "float16": (params(), None, 2 * params(), flops(), 2 * (params() + activations())),
    "int8, dynamic": (
        params(),
        None,
        weights() + 4 * (params() - weights()),
        flops(),
        None,  # see test_int8_memory
    ),
    "half of the layers": (
        params(LAYERS // 2),
        nonzero(LAYERS // 2),
        4 * params(LAYERS // 2),
        flops(LAYERS // 2),
        4 * (params(LAYERS // 2) + activations()),
    ),
}

quantises = pytest.mark.skipif(
    torch.backends.quantized.engine == "none", reason="this torch has no quantised kernels"
)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "variant",
    [pytest.param(v, id=v.name, marks=quantises if v.make is quantised else ()) for v in VARIANTS],
)
def test_what_a_variant_buys(variant):
    """Each variant holds, does and needs what its closed form says, exactly."""
    smaller, args = variant.workload(encoder())
    profile = pytest_nnscale.profile(smaller, args=args)
    left = measure_params([smaller], nonzero=True).value
    found = (profile.params, left, profile.size_bytes, profile.flops, profile.memory_bytes)
    assert profile.uncounted == ()
    for ours, expected in zip(found, EXPECTED[variant.name], strict=True):
        assert expected in (None, ours)


@pytest.mark.max_params(nonzero() - HALVED, nonzero=True)
def test_budget_for_what_pruning_left(nnscale):
    """A budget with nonzero=True holds for a masked model, and not for the same one unmasked."""
    model, sequence = encoder(), torch.rand(1, LENGTH, WIDTH)
    nnscale(masked(model), sequence)
    assert measure_params([model], nonzero=True).value > nonzero() - HALVED


@quantises
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_int8_memory():
    """Packed weights are live while a quantised model runs, as those of any model are."""
    smaller = quantised(encoder())
    profile = pytest_nnscale.profile(smaller, args=(torch.rand(1, LENGTH, WIDTH),))
    assert profile.memory_bytes >= profile.size_bytes + 4 * activations()
