"""Two layers of the 70B decoder, as wide as they are, against the closed form."""

from dataclasses import replace

import pytest

import pytest_nnscale

from .llama import SEVENTY_BILLION, workload

TWO_LAYERS = replace(SEVENTY_BILLION, layers=2)


def test_published_size():
    """The closed form of 80 layers is the 70.6e9 parameters that the weights are published with."""
    assert SEVENTY_BILLION.params == 70_553_706_496


@pytest.mark.parametrize("phase", ["inference", "training"])
@pytest.mark.parametrize("tokens", [1, 128, 4096])
def test_two_layers(tokens, phase):
    """Parameters, FLOPs and bytes of weights are the closed form, and nothing is computed for it."""
    model, args = workload(TWO_LAYERS, tokens)
    profile = pytest_nnscale.profile(model, args=args, phase=phase)
    assert profile.method == "traced"
    assert profile.uncounted == ()
    assert profile.params == TWO_LAYERS.params
    assert profile.flops == TWO_LAYERS.flops(tokens, training=phase == "training")
    assert dict(profile.held)["weights"] == 2 * TWO_LAYERS.params
