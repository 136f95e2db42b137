"""Video classifiers on clips of 16 frames, batch 1."""

import pytest
import torch
from torchvision.models import get_model

import pytest_nnscale

from .published import as_published, published, published_macs, published_params

SIZES = {"mc3_18": 112, "r2plus1d_18": 112, "r3d_18": 112, "s3d": 224}


@pytest.mark.max_params({name: published_params(name) for name in SIZES})
@pytest.mark.max_macs({name: published_macs(name) for name in SIZES})
@pytest.mark.parametrize("name", SIZES)
def test_video_classifier(nnscale, name):
    """A video classifier has no more parameters and needs no more MACs than published."""
    model = get_model(name, weights=None).eval()
    clip = torch.rand(1, 3, 16, SIZES[name], SIZES[name])
    logits = nnscale(model, clip)
    assert logits.shape == (1, 400)
    assert as_published(pytest_nnscale.profile(model, args=(clip,))) == published(name)
