"""ResNets at 224 pixels, against the table of their paper and the figures of torchvision.

He et al., "Deep Residual Learning for Image Recognition" (arXiv:1512.03385), table 1, calls a
multiply-accumulate one FLOP: its 3.8e9 for ResNet-50 stands beside 4.089 GMAC of torchvision, 8.178
GFLOP. The models differ by where a stage halves the resolution: the paper's in the first 1 x 1
convolution of its first block, torchvision's in the 3 x 3 after it, so that the 1 x 1 works at twice
the width and height (torchvision.models.resnet.Bottleneck, "ResNet V1.5").
"""

import pytest
from torchvision.models import get_model_weights

import pytest_nnscale

from .resnet import PAPER, STAGES, as_in_paper, closed_form_macs, workload


@pytest.mark.max_params(25_557_032)
@pytest.mark.max_flops("8.179 GFLOP")
def test_resnet50_is_as_torchvision_publishes(nnscale):
    """Parameters are exactly, and MACs to the last digit, those published with the weights."""
    model, args = workload("resnet50")
    nnscale(model, *args)
    meta = get_model_weights("resnet50").DEFAULT.meta
    profile = pytest_nnscale.profile(model, args=args)
    assert profile.params == meta["num_params"] == 25_557_032
    assert round(profile.macs / 1e9, 3) == meta["_ops"] == 4.089


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("late", [True, False], ids=["stride in 3x3", "stride in 1x1"])
def test_macs_are_the_closed_form(name, late):
    """MACs of both kinds of ResNet are those of the table's layers, to the last one."""
    model, args = workload(name)
    if not late:
        as_in_paper(model)
    assert pytest_nnscale.profile(model, args=args).macs == closed_form_macs(
        STAGES[name], late=late
    )


@pytest.mark.parametrize(("name", "published"), PAPER.items())
def test_paper(name, published):
    """With strides as in the paper, MACs are its "FLOPs" to within one unit of its last digit.

    ResNet-101 and -152 agree in that digit; for ResNet-50, the layers of the paper's own table
    come to 3.858e9 where it prints 3.8e9.
    """
    model, args = workload(name)
    macs = pytest_nnscale.profile(as_in_paper(model), args=args).macs
    assert abs(macs - published * 1e9) < 0.1e9
    if name != "resnet50":
        assert round(macs / 1e9, 1) == published


def test_stride_moves_work_and_no_parameter():
    """Moving the strides leaves every parameter and takes 0.23 GMAC off ResNet-50."""
    model, args = workload("resnet50")
    late = pytest_nnscale.profile(model, args=args)
    early = pytest_nnscale.profile(as_in_paper(model), args=args)
    assert early.params == late.params
    # At three stages the 1 x 1 worked on four times the pixels.
    extra = sum(
        3 * side**2 * channels * inner
        for side, channels, inner in ((28, 256, 128), (14, 512, 256), (7, 1024, 512))
    )
    assert late.macs - early.macs == extra == 231_211_008
