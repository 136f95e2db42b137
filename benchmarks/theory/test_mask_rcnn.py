"""Mask R-CNN against the figures published with torchvision's weights.

torchvision measures its `_ops` on noise of 800 x 800 pixels (test/test_extended_models.py,
detection_models_input_dims), so that no image of a data set is needed. Work depends on the image
in two numbers alone, how many proposals the first stage hands on and how many detections are kept;
the published figure is that of the most of both, 1000 and 100.
"""

import pytest
import torch
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_V2_Weights

import pytest_nnscale

from .mask_rcnn import DETECTIONS, PROPOSALS, SIDE, build, workload
from .resnet import STAGES, closed_form_macs

META = MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1.meta
LEVELS = {256: 200, 512: 100, 1024: 50, 2048: 25}  # channels of a stage and its side at 800 pixels
CLASSES = 91
CELL = 9 * 256 * 256  # MACs of a 3 x 3 convolution of 256 channels, per pixel


def backbone_macs() -> int:
    """The body of ResNet-50, then a 1 x 1 and a 3 x 3 convolution on each level."""
    # All sides of the body are 800 / 224 of those that an image of 224 pixels gives.
    body = (closed_form_macs(STAGES["resnet50"], late=True) - 2048 * 1000) * SIDE**2 // 224**2
    pyramid = sum(side**2 * (channels * 256 + CELL) for channels, side in LEVELS.items())
    return body + pyramid


def proposal_macs() -> int:
    """Two 3 x 3 convolutions on five levels, then an object's score and a box for three anchors."""
    pixels = sum(side**2 for side in (*LEVELS.values(), 13))
    return pixels * (2 * CELL + 256 * 3 * (1 + 4))


def box_macs() -> int:
    """Per proposal: four convolutions on 7 x 7, a layer of 1024, and for each class a score and box."""
    return PROPOSALS * (4 * 49 * CELL + 49 * 256 * 1024 + 1024 * CLASSES * (1 + 4))


def mask_macs() -> int:
    """Per detection: four convolutions on 14 x 14, twice the resolution, a mask for each class."""
    return DETECTIONS * (4 * 196 * CELL + 196 * 256 * 256 * 4 + 784 * 256 * CLASSES)


CLOSED_FORMS = {
    "backbone": backbone_macs,
    "proposals": proposal_macs,
    "boxes": box_macs,
    "masks": mask_macs,
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_each_network_is_its_closed_form(name):
    """Each network of the detector needs the MACs of its layers, to the last one."""
    model, args = workload()
    rows = {row.path: row for row in pytest_nnscale.profile(model, args=args).modules}
    assert rows[name].total_flops == 2 * CLOSED_FORMS[name]()


@pytest.mark.max_params(META["num_params"])
@pytest.mark.max_macs(META["_ops"] * 1e9 + 500_000)
def test_published_figures(nnscale):
    """All networks together are what torchvision publishes, to its last digit."""
    model, args = workload()
    nnscale(model, *args)
    profile = pytest_nnscale.profile(model, args=args)
    assert profile.params == META["num_params"] == 46_359_409
    assert round(profile.macs / 1e9, 3) == META["_ops"] == 333.577
    assert profile.macs == sum(closed_form() for closed_form in CLOSED_FORMS.values())


@pytest.mark.slow
def test_whole_detector_runs_as_published():
    """The detector itself, run on noise, gives the most boxes and comes to the published figure."""
    model, image = build(), torch.randn(3, SIDE, SIDE)
    profile = pytest_nnscale.profile(model, args=([image],), metrics=["macs"])
    assert round(profile.macs / 1e9, 3) == META["_ops"]
