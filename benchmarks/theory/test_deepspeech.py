"""Deep Speech against the closed form of its paper, and Mozilla's against a published count.

The paper prints neither parameters nor FLOPs. Mozilla's version, with an LSTM, is in the Open Model Zoo
(github.com/openvinotoolkit/open_model_zoo, mozilla-deepspeech-0.6.1) with 47.2M parameters and 0.0472
GFlops a frame, 2.36 a second of 50 frames: a multiply-accumulate is one there.
"""

import pytest

import pytest_nnscale

from .deepspeech import (
    CHARACTERS,
    COEFFICIENTS,
    CONTEXT,
    FEATURES,
    UNITS,
    mozilla_workload,
    workload,
)


@pytest.mark.max_params("28.4M")
@pytest.mark.max_flops({"1": "40 MFLOP", "50": "2.83 GFLOP"})
@pytest.mark.parametrize("frames", [1, 50], ids=str)
def test_closed_form(nnscale, frames):
    """Five matrices, two recurrent ones and the output: each meets each frame once.

    A recurrent matrix meets one frame less: the state before the first is zero, and not computed.
    """
    square, window = UNITS * UNITS, (2 * CONTEXT + 1) * FEATURES
    dense = window * UNITS + 4 * square + UNITS * CHARACTERS
    model, args = workload(frames)
    logits = nnscale(model, *args)
    assert logits.shape == (1, frames, CHARACTERS)
    profile = pytest_nnscale.profile(model, args=args)
    assert profile.uncounted == ()
    assert profile.params == dense + 2 * square + 5 * UNITS + CHARACTERS == 28_387_357
    assert profile.flops == 2 * (frames * dense + 2 * (frames - 1) * square)


@pytest.mark.max_params("47.25M")
@pytest.mark.max_macs(50 * 47_250_000)
def test_published_figures_of_mozilla(nnscale):
    """Parameters in 1e6 and MACs of a frame are the published ones to the last digit.

    torch keeps two biases for each gate, TensorFlow one: 8192 parameters more here.
    """
    model, args = mozilla_workload(50)
    nnscale(model, *args)
    profile = pytest_nnscale.profile(model, args=args)
    assert profile.uncounted == ()
    assert round((profile.params - 4 * UNITS) / 1e6, 1) == 47.2
    assert round(profile.macs / 50 / 1e9, 4) == 0.0472
    assert round(profile.macs / 1e9, 2) == 2.36
    weights = (2 * CONTEXT + 1) * COEFFICIENTS * UNITS + (3 + 8) * UNITS**2 + UNITS * CHARACTERS
    assert profile.macs == 50 * weights
