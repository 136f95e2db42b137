"""Segmentation models at the 520 pixels of their published figures, batch 1."""

import pytest
import torch
from torchvision.models import get_model

import pytest_nnscale

from .published import as_published, published, published_macs, published_params

# The published DeepLab and FCN carry the second head that training uses; LRASPP has none.
MODELS = {
    "deeplabv3_mobilenet_v3_large": {"aux_loss": True},
    "fcn_resnet50": {"aux_loss": True},
    "lraspp_mobilenet_v3_large": {},
}


@pytest.mark.max_params({name: published_params(name) for name in MODELS})
@pytest.mark.max_macs({name: published_macs(name) for name in MODELS})
@pytest.mark.parametrize("name", MODELS)
def test_segmentation(nnscale, name):
    """A segmentation model has no more parameters and needs no more MACs than published."""
    model = get_model(name, weights=None, weights_backbone=None, **MODELS[name]).eval()
    image = torch.rand(1, 3, 520, 520)
    scores = nnscale(model, image)["out"]
    assert scores.shape == (1, 21, 520, 520)
    assert as_published(pytest_nnscale.profile(model, args=(image,))) == published(name)
