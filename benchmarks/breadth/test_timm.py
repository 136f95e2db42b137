"""timm's architectures at their default image size, batch 1, on the meta device.

The chosen ones run by default, all others with `-m "slow or not slow"`.
"""

import pytest
import timm
import torch

import pytest_nnscale

from .architectures import chosen

CHOSEN = chosen()
ARCHITECTURES = [
    pytest.param(name, marks=() if name in CHOSEN else pytest.mark.slow)
    for name in timm.list_models()
]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture(name):
    """An architecture of timm is counted whole: no operator without a formula, no parameter lost."""
    model, image = _built(name, "meta")
    profile = pytest_nnscale.profile(model, args=(image,))
    assert profile.uncounted == ()
    assert profile.flops > 0
    assert profile.params == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("name", timm.list_models("test_*"))
def test_on_device(name):
    """An architecture has the same FLOPs and parameters on the CPU as on the meta device."""
    for_real, shapes = (
        pytest_nnscale.profile(model, args=(image,))
        for model, image in (_built(name, device) for device in ("cpu", "meta"))
    )
    assert (for_real.flops, for_real.params) == (shapes.flops, shapes.params)


def test_chosen_from_every_module_file():
    """At least 300 architectures are chosen, and one of every module file of timm is among them."""
    assert len(CHOSEN) >= 300
    for module in timm.list_modules():
        assert CHOSEN.intersection(timm.list_models(module=module)), module


def _built(name, device):
    with torch.device(device):
        model = timm.create_model(name, pretrained=False).eval()
        return model, torch.rand(1, *model.default_cfg["input_size"])
