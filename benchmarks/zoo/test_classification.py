"""ImageNet classifiers at the crop size of their published weights, batch 1."""

import pytest
import torch
from torchvision.models import get_model

import pytest_nnscale

from .published import as_published, published, published_macs, published_params

# Families rather than sizes: each row brings operators or a structure that no other one has.
SIZES = {
    "alexnet": 224,
    "convnext_tiny": 224,
    "densenet121": 224,
    "efficientnet_b0": 224,
    "efficientnet_v2_s": 384,
    "googlenet": 224,
    "inception_v3": 299,
    "maxvit_t": 224,
    "mnasnet1_0": 224,
    "mobilenet_v2": 224,
    "mobilenet_v3_large": 224,
    "mobilenet_v3_small": 224,
    "regnet_x_400mf": 224,
    "regnet_y_400mf": 224,
    "resnet18": 224,
    "resnet50": 224,
    "resnext50_32x4d": 224,
    "shufflenet_v2_x1_0": 224,
    "squeezenet1_0": 224,
    "swin_t": 224,
    "swin_v2_t": 256,
    "vgg11": 224,
    "vit_b_16": 224,
    "wide_resnet50_2": 224,
}
OPTIONS = {
    # The published figures are those without the two heads that only training uses ...
    "googlenet": {"aux_logits": False, "init_weights": False},
    # ... and here those with them. Not saying whether to draw initial weights is a warning in both.
    "inception_v3": {"init_weights": False},
}


@pytest.mark.max_params({name: published_params(name) for name in SIZES})
@pytest.mark.max_macs({name: published_macs(name) for name in SIZES})
@pytest.mark.parametrize("name", SIZES)
def test_classifier(nnscale, name):
    """A classifier has no more parameters and needs no more MACs than published."""
    model = get_model(name, weights=None, **OPTIONS.get(name, {})).eval()
    image = torch.rand(1, 3, SIZES[name], SIZES[name])
    logits = nnscale(model, image)
    assert logits.shape == (1, 1000)
    assert as_published(pytest_nnscale.profile(model, args=(image,))) == published(name)
