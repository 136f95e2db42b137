"""The plain classifier of textbooks: one convolution, pooling, and two linear layers."""

import torch
from torch import Tensor, nn

from .published import Published


def build() -> nn.Sequential:
    """3 x 224 x 224 pixels to ten classes."""
    return nn.Sequential(
        nn.Conv2d(3, 32, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 112 * 112, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def workload() -> tuple[nn.Module, tuple[Tensor]]:
    """The classifier and one image, without values."""
    with torch.device("meta"):
        return build(), (torch.empty(1, 3, 224, 224),)


PUBLISHED = (
    Published(
        "conv-pool-linear",
        workload,
        params="25,691,722",
        flops="138,085,632",
        source="closed form",
    ),
)
