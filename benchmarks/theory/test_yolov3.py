"""YOLOv3 against the table of its authors, at pjreddie.com/darknet/yolo.

Darknet prints two FLOP a multiply-accumulate and counts the convolutions alone, as this package
does: 2 x filters x kernel^2 x channels x height x width of the output, in 1e9 (`BFLOPs`).
"""

import pytest
from torch import nn

import pytest_nnscale

from .yolov3 import FILE_HEADER_BYTES, WEIGHTS_FILE_BYTES, workload

BFLOPS = {320: 38.97, 416: 65.86, 608: 140.69}
ROUNDING_FLOP = 5_000_000  # half a unit of the last digit printed


@pytest.mark.max_flops({str(size): bflops * 1e9 + ROUNDING_FLOP for size, bflops in BFLOPS.items()})
@pytest.mark.parametrize("size", BFLOPS, ids=str)
def test_flops_agree_to_the_last_digit(nnscale, size):
    """The FLOPs at each published size are the authors' to the last digit that they print."""
    model, args = workload(size)
    large, medium, small = nnscale(model, *args)
    assert large.shape == (1, 255, size // 32, size // 32)
    assert medium.shape == (1, 255, size // 16, size // 16)
    assert small.shape == (1, 255, size // 8, size // 8)
    profile = pytest_nnscale.profile(model, args=args)
    assert profile.uncounted == ()
    assert round(profile.flops / 1e9, 2) == BFLOPS[size]


def test_values_fill_the_weights_file():
    """Parameters and running statistics are as many floats as the published file of weights holds."""
    model, _ = workload()
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    statistics = 2 * sum(norm.num_features for norm in norms)
    profile = pytest_nnscale.profile(model)
    assert 4 * (profile.params + statistics) == WEIGHTS_FILE_BYTES - FILE_HEADER_BYTES
    assert profile.size_bytes == WEIGHTS_FILE_BYTES - FILE_HEADER_BYTES + 8 * len(norms)
