"""Size: the bytes of what a model keeps, in every form it keeps it."""

import pytest
import torch
from torch import nn

from pytest_nnscale.meters.size import measure_size


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("made", [torch.jit.freeze, torch.jit.optimize_for_inference])
def test_weights_of_a_frozen_model_have_size(made):
    """Constants of a graph take as many bytes as the weights that they were."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(36, 5)).eval()
    expected = measure_size([model]).value
    assert expected == 4 * (4 * 27 + 4 + 36 * 5 + 5)
    assert measure_size([made(torch.jit.script(model))]).upper == expected


def test_parameters_elsewhere_make_a_lower_bound():
    """The bytes of parameters that ran and belong to no model seen come on top, each once."""
    stray = torch.ones(8, 3)
    found = measure_size([nn.Linear(2, 2)], elsewhere=[stray, stray.view(3, 8)])
    assert (found.lower, found.upper) == (4 * (6 + 24), None)
    assert "(8, 3), (3, 8) ran that belong to no module seen" in found.reason


def test_parameter_elsewhere_that_is_gone_counts_its_nominal_bytes():
    """A counter keeps no tensor alive: on meta is what stood for them."""
    gone = torch.empty(4, 4, dtype=torch.half, device="meta")
    assert measure_size([nn.Linear(2, 2)], elsewhere=[gone]).lower == 4 * 6 + 2 * 16
