"""ResNets with bottlenecks: torchvision's, and the same with the paper's strides."""

import torch
from torch import Tensor, nn
from torchvision.models import ResNet, get_model
from torchvision.models.resnet import Bottleneck

from .published import Published

# Multiply-accumulates in 1e9: He et al., arXiv:1512.03385, table 1, where they are called FLOPs.
PAPER = {"resnet50": 3.8, "resnet101": 7.6, "resnet152": 11.3}
# Bottlenecks at each of four resolutions.
STAGES = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}


def stage_macs(blocks: int, channels: int, inner: int, side: int, *, late: bool) -> int:
    """MACs of one stage of bottlenecks; `late` strides in the 3 x 3, as torchvision does."""
    outer, pixels = 4 * inner, side * side
    halves = channels != 64  # the first stage keeps the resolution that pooling left
    reduced_at = 4 * pixels if late and halves else pixels
    first = reduced_at * channels * inner + pixels * (9 * inner * inner + inner * outer)
    shortcut = pixels * channels * outer
    others = (blocks - 1) * pixels * (outer * inner + 9 * inner * inner + inner * outer)
    return first + shortcut + others


def closed_form_macs(stages: tuple[int, ...], *, late: bool) -> int:
    """MACs of a whole network of bottlenecks on 224 x 224 pixels and 1000 classes."""
    stem, classifier = 112 * 112 * 7 * 7 * 3 * 64, 2048 * 1000
    inputs, sides = (64, 256, 512, 1024), (56, 28, 14, 7)
    inner = (64, 128, 256, 512)
    body = zip(stages, inputs, inner, sides, strict=True)
    return stem + sum(stage_macs(*stage, late=late) for stage in body) + classifier


def workload(name: str = "resnet50") -> tuple[ResNet, tuple[Tensor]]:
    """A model of torchvision and one image, without values."""
    with torch.device("meta"):
        return get_model(name, weights=None).eval(), (torch.empty(1, 3, 224, 224),)


def as_in_paper(model: ResNet) -> ResNet:
    """Let each bottleneck stride in its first convolution instead of its second."""
    for block in model.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return model


def paper_workload() -> tuple[nn.Module, tuple[Tensor]]:
    """ResNet-50 with the strides of the paper and one image, without values."""
    model, args = workload()
    return as_in_paper(model), args


PUBLISHED = (
    Published(
        "ResNet-50 (torchvision)",
        workload,
        params="25,557,032",
        flops="8.178 G (4.089 GMAC)",
        source="torchvision ResNet50_Weights",
    ),
    Published(
        "ResNet-50 (paper's strides)",
        paper_workload,
        params="-",
        flops="7.6 G (3.8e9 mult-adds)",
        source="arXiv:1512.03385, table 1",
    ),
)
