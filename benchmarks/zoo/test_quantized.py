"""Quantised models, whose weights lie packed where `parameters()` does not look."""

import pytest
import torch
from torchvision.models import get_model

from .published import published_params

# Each is packed for the engine its builder asks for. Published counts are those of the float models:
# packing folds each batch norm into a bias, so the packed count is lower, by under 2 per cent here.
MODELS = ("quantized_mobilenet_v2", "quantized_resnet18", "quantized_shufflenet_v2_x1_0")
ENGINES = {"quantized_mobilenet_v2": "qnnpack"}


@pytest.fixture
def quantized(name):
    """A quantised model with random weights, and the engine as it was afterwards."""
    engine = torch.backends.quantized.engine
    wanted = ENGINES.get(name, "fbgemm")
    if wanted not in torch.backends.quantized.supported_engines:
        pytest.skip(f"this torch has no {wanted}")
    yield get_model(name, weights=None, quantize=True).eval()
    torch.backends.quantized.engine = engine


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.max_params({name: published_params(name) for name in MODELS})
@pytest.mark.parametrize("name", MODELS)
def test_quantized(nnscale, name, quantized):
    """Packed weights are counted: neither more than the float model has, nor almost none."""
    assert nnscale.profile(quantized).params > 0.98 * published_params(name)
