"""YOLOv3 for 80 classes: Darknet-53 and three detection heads.

The layers are those of table 1 and section 2.3 of Redmon and Farhadi, "YOLOv3: An Incremental
Improvement" (arXiv:1804.02767); the channels of the heads are those of darknet's cfg/yolov3.cfg.
"""

import torch
from torch import Tensor, nn

from .published import Published

ANCHORS, CLASSES = 3, 80
OUTPUTS = ANCHORS * (4 + 1 + CLASSES)  # a box, whether there is an object, and its class
BLOCKS = {64: 1, 128: 2, 256: 8, 512: 8, 1024: 4}  # residual blocks by channels
WEIGHTS_FILE_BYTES = 248_007_048  # yolov3.weights, at pjreddie.com/darknet/yolo
FILE_HEADER_BYTES = 20  # three version numbers in 12, the images seen in 8


def convolution(channels: int, filters: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution as darknet has it: no bias, batch norm, leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, filters, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(filters),
        nn.LeakyReLU(0.1),
    )


class Residual(nn.Module):
    """Half of the channels, all of them again, and the input added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = convolution(channels, channels // 2, 1)
        self.expand = convolution(channels // 2, channels, 3)

    def forward(self, image: Tensor) -> Tensor:
        return image + self.expand(self.squeeze(image))


def stage(channels: int) -> nn.Sequential:
    """Half the resolution at twice the channels, then the residual blocks of that resolution."""
    blocks = [Residual(channels) for _ in range(BLOCKS[channels])]
    return nn.Sequential(convolution(channels // 2, channels, 3, stride=2), *blocks)


class Head(nn.Module):
    """Five convolutions that the next finer head reads too, then two that give the boxes."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            convolution(channels, width, 1),
            convolution(width, 2 * width, 3),
            convolution(2 * width, width, 1),
            convolution(width, 2 * width, 3),
            convolution(2 * width, width, 1),
        )
        self.boxes = nn.Sequential(
            convolution(width, 2 * width, 3), nn.Conv2d(2 * width, OUTPUTS, 1)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(image)
        return features, self.boxes(features)


class Rise(nn.Module):
    """Features of a coarser head at twice the resolution, beside those of the backbone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow = convolution(channels, channels // 2, 1)
        self.upsample = nn.Upsample(scale_factor=2)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return torch.cat([self.upsample(self.narrow(coarse)), fine], dim=1)


class YOLOv3(nn.Module):
    """Boxes at a 32nd, a 16th and an eighth of the image's resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, 32, 3)
        self.eighth = nn.Sequential(stage(64), stage(128), stage(256))
        self.sixteenth = stage(512)
        self.thirtysecond = stage(1024)
        self.large = Head(1024, 512)
        self.rise_to_medium = Rise(512)
        self.medium = Head(256 + 512, 256)
        self.rise_to_small = Rise(256)
        self.small = Head(128 + 256, 128)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fine = self.eighth(self.stem(image))
        finer = self.sixteenth(fine)
        features, large = self.large(self.thirtysecond(finer))
        features, medium = self.medium(self.rise_to_medium(features, finer))
        _, small = self.small(self.rise_to_small(features, fine))
        return large, medium, small


def workload(size: int = 416) -> tuple[nn.Module, tuple[Tensor]]:
    """The network and one square image, without values."""
    with torch.device("meta"):
        return YOLOv3().eval(), (torch.empty(1, 3, size, size),)


PUBLISHED = (
    Published(
        "YOLOv3, 416 x 416",
        workload,
        params="62,001,757 floats in yolov3.weights",
        flops="65.86 G",
        source="pjreddie.com/darknet/yolo",
    ),
)
