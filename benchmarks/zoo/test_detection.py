"""Detectors: work where it depends on the image's size alone, parameters for the others."""

import pytest
import torch
from torchvision.models import get_model

import pytest_nnscale

from .published import as_published, published, published_macs, published_params

SINGLE_SHOT = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}

# Their published GMACs depend on one image: on its aspect ratio and, with a second stage, on how
# many proposals it gave. The first versions (fasterrcnn_resnet50_fpn and others) are left out: built
# without weights their batch norms are not frozen, and so have parameters the published count lacks.
BY_PARAMETERS = (
    "fasterrcnn_resnet50_fpn_v2",
    "maskrcnn_resnet50_fpn_v2",
    "retinanet_resnet50_fpn_v2",
)


@pytest.mark.max_params({name: published_params(name) for name in SINGLE_SHOT})
@pytest.mark.max_macs({name: published_macs(name) for name in SINGLE_SHOT})
@pytest.mark.parametrize("name", SINGLE_SHOT)
def test_single_shot_detector(nnscale, name):
    """A single-shot detector has no more parameters and needs no more MACs than published."""
    model = get_model(name, weights=None, weights_backbone=None).eval()
    images = [torch.rand(3, SINGLE_SHOT[name], SINGLE_SHOT[name])]
    (found,) = nnscale(model, images)
    assert found["boxes"].shape == (len(found["scores"]), 4)
    assert as_published(pytest_nnscale.profile(model, args=(images,))) == published(name)


@pytest.mark.max_params({name: published_params(name) for name in BY_PARAMETERS})
@pytest.mark.parametrize("name", BY_PARAMETERS)
def test_detector(nnscale, name):
    """A detector has no more parameters than published."""
    nnscale.profile(get_model(name, weights=None, weights_backbone=None))
