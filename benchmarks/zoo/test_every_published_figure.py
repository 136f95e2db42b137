"""Every figure that torchvision publishes: parameters, and MACs to the last digit, batch 1.

How torchvision measured is in test/common_extended_utils.py and test/test_extended_models.py of its
repository: images at the crop size of their weights, clips of 16 frames, segmentation at 520
pixels, optical flow between images of 512, detection at the sizes listed here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unittest import mock

import pytest
import torch
from torch import nn
from torchvision.models import (
    WeightsEnum,
    detection,
    get_model,
    get_model_weights,
    list_models,
    optical_flow,
    segmentation,
    video,
)
from torchvision.models.regnet import BlockParams
from torchvision.ops.misc import FrozenBatchNorm2d

import pytest_nnscale
from pytest_nnscale import Profile

from .published import as_published, published_with

pytestmark = pytest.mark.slow

# Those that need something said to be built as published. Heads that only training uses are part
# of some figures and not of others.
OPTIONS = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "quantized_googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"init_weights": False},
    "quantized_inception_v3": {"init_weights": False},
    **{
        name: {"weights_backbone": None, "aux_loss": True}
        for name in list_models(segmentation)
        if not name.startswith("lraspp")
    },
    "lraspp_mobilenet_v3_large": {"weights_backbone": None},
}


def every_set_of_weights(names: list[str]) -> list:
    return [
        pytest.param(name, weights, id=f"{name}-{weights.name}")
        for name in names
        for weights in get_model_weights(name)
    ]


@contextmanager
def on_meta() -> Iterator[None]:
    """Build models without memory, but for the small tensors that RegNet reads its widths off."""
    make = BlockParams.from_init_params

    def really(*args, **kwargs) -> BlockParams:
        with torch.device("cpu"):
            return make(*args, **kwargs)

    with mock.patch.object(BlockParams, "from_init_params", really), torch.device("meta"):
        yield


def sizes(name: str, weights: WeightsEnum) -> tuple[tuple[int, ...], ...]:
    """Return the shape of every input that the figures of some weights are of."""
    if name in list_models(optical_flow):
        return ((1, 3, 512, 512), (1, 3, 512, 512))
    transforms = weights.transforms()
    if name in list_models(segmentation):
        return ((1, 3, *transforms.resize_size * 2),)
    crop = (*transforms.crop_size * 2,)[:2]
    return ((1, 3, 16, *crop),) if name in list_models(video) else ((1, 3, *crop),)


@cache  # sets of weights of one model often share their size
def profile_on_meta(name: str, shapes: tuple[tuple[int, ...], ...]) -> Profile:
    options = dict(OPTIONS.get(name, {}))
    if name.startswith("vit_"):
        options["image_size"] = shapes[0][-1]
    with on_meta():
        model = get_model(name, weights=None, **options).eval()
        inputs = tuple(torch.empty(shape) for shape in shapes)
    found = pytest_nnscale.profile(model, inputs, metrics=("params", "flops", "macs"))
    assert found.uncounted == ()
    return found


@pytest.mark.parametrize(
    ("name", "weights"),
    every_set_of_weights([name for name in list_models() if name not in list_models(detection)]),
)
def test_figures_that_depend_on_sizes_alone(name, weights):
    """Both figures come out, with models and inputs that have shapes and no numbers."""
    found = profile_on_meta(name, sizes(name, weights))
    assert as_published(found) == published_with(weights)


# What the second stage of a detector costs depends on how many proposals the first one makes of an
# image, and how many of these are detected. Random weights make others than trained ones. These
# options fix both: where all pass its thresholds, a stage passes on the most that it may.
NO_PROPOSALS = {"rpn_score_thresh": 1.0}
PROPOSALS = {"rpn_nms_thresh": 1.0}  # 1000
NONE_FOUND = {**PROPOSALS, "box_score_thresh": 1.0}
ALL_FOUND = {**PROPOSALS, "box_score_thresh": 0.0, "box_nms_thresh": 1.0}  # 100
ONE_FOUND = {**ALL_FOUND, "box_detections_per_img": 1}
DETECTORS = {
    ("fasterrcnn_mobilenet_v3_large_320_fpn", "COCO_V1"): (320, NO_PROPOSALS),
    ("fasterrcnn_mobilenet_v3_large_fpn", "COCO_V1"): (800, NO_PROPOSALS),
    ("fasterrcnn_resnet50_fpn", "COCO_V1"): (800, NONE_FOUND),
    ("fasterrcnn_resnet50_fpn_v2", "COCO_V1"): (800, NONE_FOUND),
    ("fcos_resnet50_fpn", "COCO_V1"): (800, {}),
    ("keypointrcnn_resnet50_fpn", "COCO_LEGACY"): (1333, NONE_FOUND),
    ("keypointrcnn_resnet50_fpn", "COCO_V1"): (1333, ONE_FOUND),
    ("maskrcnn_resnet50_fpn", "COCO_V1"): (800, NONE_FOUND),
    ("maskrcnn_resnet50_fpn_v2", "COCO_V1"): (800, ALL_FOUND),
    ("retinanet_resnet50_fpn", "COCO_V1"): (800, {}),
    ("retinanet_resnet50_fpn_v2", "COCO_V1"): (800, {}),
    ("ssd300_vgg16", "COCO_V1"): (300, {}),
    ("ssdlite320_mobilenet_v3_large", "COCO_V1"): (320, {}),
}
# Of the first versions, batch norms are frozen where weights are loaded: buffers, no parameters.
NOT_FROZEN = ("_v2", "vgg16", "ssdlite320_mobilenet_v3_large")


def freeze_batch_norms(model: nn.Module) -> None:
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, FrozenBatchNorm2d(child.num_features))


@pytest.mark.parametrize(
    ("name", "weights"), every_set_of_weights([str(name) for name in list_models(detection)])
)
def test_figures_of_detectors(name, weights):
    """Both figures come out, for the number of proposals and detections that were published."""
    size, options = DETECTORS[name, weights.name]
    model = get_model(name, weights=None, weights_backbone=None, **options).eval()
    if not name.endswith(NOT_FROZEN):
        freeze_batch_norms(model)
    image = torch.rand(3, size, size)  # real, as boxes are chosen by their scores
    found = pytest_nnscale.profile(model, ([image],), metrics=("params", "flops", "macs"))
    assert found.uncounted == ()
    assert as_published(found) == published_with(weights)
