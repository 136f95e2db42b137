"""Parameters and size: what a model keeps, in every form it keeps it."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import pytest_nnscale
from pytest_nnscale.meters.params import measure_params


def quantised() -> nn.Module:
    """Return a dynamically quantised Linear, which has no parameters() at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear})


def test_packed_weights_count_as_parameters_at_their_stored_size():
    """Twelve int8 weights and three float biases, though parameters() is empty."""
    model = quantised()
    assert list(model.parameters()) == []
    profile = pytest_nnscale.profile(model)
    assert profile.params == 4 * 3 + 3
    assert profile.size_bytes == 4 * 3 * 1 + 3 * 4


def test_packed_weights_of_a_scripted_model_count_too():
    """TorchScript keeps its attributes out of the module's dict."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.jit.script(quantised())
    assert pytest_nnscale.profile(model).params == 15


def test_a_shared_parameter_counts_once():
    """Tied weights are one tensor, in parameters and in size."""
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    profile = pytest_nnscale.profile(model)
    assert (profile.params, profile.size_bytes) == (16, 64)


def test_buffers_have_size_and_are_no_parameters():
    """BatchNorm keeps two running statistics and an int64 count."""
    profile = pytest_nnscale.profile(nn.BatchNorm1d(4))
    assert profile.params == 8
    assert profile.size_bytes == 4 * (4 + 4 + 4 + 4) + 8


@pytest.mark.parametrize(("dtype", "width"), [(torch.float64, 8), (torch.bfloat16, 2)])
def test_size_follows_the_dtype(dtype: torch.dtype, width: int):
    """Half precision takes half."""
    assert pytest_nnscale.profile(nn.Linear(3, 3).to(dtype)).size_bytes == 12 * width


def test_sparse_storage_is_values_and_indices():
    """Two non-zeros of a matrix: two floats and two pairs of int64."""
    model = nn.Module()
    model.register_buffer("mask", torch.eye(2).to_sparse())
    assert pytest_nnscale.profile(model).size_bytes == 2 * 4 + 4 * 8


def test_a_lazy_module_is_unmeasured_not_zero():
    """What has no shape yet has no count."""
    profile = pytest_nnscale.profile(nn.LazyLinear(3))
    assert profile.params is None
    assert profile.measurement("params").unmeasured
    assert "lazy" in profile.measurement("params").reason


def test_a_pack_of_an_unknown_kind_makes_the_count_a_lower_bound(monkeypatch):
    """Weights may hide in any C++ object: then nothing is claimed."""
    from pytest_nnscale.counting import stored

    def refuse(pack):
        raise RuntimeError("cannot be opened")

    monkeypatch.setattr(stored, "opened", refuse)
    measurement = pytest_nnscale.profile(quantised()).measurement("params")
    assert (measurement.lower, measurement.upper) == (0, None)
    assert "0._packed_params keeps weights packed" in measurement.reason


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("made", [torch.jit.freeze, torch.jit.optimize_for_inference])
def test_weights_of_a_frozen_model_count(made):
    """Freezing makes weights constants of the graph; each counts once, and what it replaced not."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(36, 5)).eval()
    frozen = made(torch.jit.script(model))
    assert list(frozen.parameters()) == []
    expected = sum(parameter.numel() for parameter in model.parameters())
    assert measure_params([frozen]).upper == expected
    assert measure_params([nn.Sequential(frozen, frozen)]).upper == expected


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_literals_of_a_script_are_no_parameters():
    """A tensor that a trace made a constant of is one of the code, not a frozen weight."""
    shift = torch.ones(3)

    class Shifted(nn.Linear):
        def forward(self, x):
            return super().forward(x) + shift

    model = torch.jit.trace(Shifted(4, 3), torch.ones(2, 4))
    assert measure_params([model]).upper == 15


def test_parameters_elsewhere_make_a_lower_bound():
    """Parameters that ran and belong to no model seen are counted and named."""
    strays = [torch.ones(8, 3, requires_grad=True), torch.ones(7)]
    found = measure_params([nn.Linear(2, 2)], elsewhere=strays)
    assert (found.lower, found.upper) == (6 + 24 + 7, None)
    assert found.reason == "parameters of shape (8, 3), (7,) ran that belong to no module seen"
    assert "call the module that owns them" in found.remedy
    trainable = measure_params([nn.Linear(2, 2)], trainable=True, elsewhere=strays)
    assert (trainable.lower, trainable.upper) == (6 + 24, None)
    assert measure_params([nn.Linear(2, 2)], trainable=True, elsewhere=strays[1:]).upper == 6


def test_nonzero_counts_what_pruning_left():
    """By masks, by weights set to zero, and after the masks were made permanent."""
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 4, bias=False))
    with torch.no_grad():
        model[1].weight.fill_(1.0)[0] = 0
        model[0].weight.fill_(1.0)
        model[0].bias.fill_(1.0)
    assert measure_params([model], nonzero=True).value == 110 + 30
    prune.random_unstructured(model[0], "weight", amount=25)
    assert measure_params([model]).value == 110 + 40
    found = measure_params([model], nonzero=True)
    assert found.value == 85 + 30
    assert {share.path: share.own for share in found.shares} == {"": 0, "0": 85, "1": 30}
    prune.remove(model[0], "weight")
    assert measure_params([model], nonzero=True).value == 85 + 30


def test_nonzero_of_sparse_and_quantised_weights():
    """Stored zeros are zeros, whatever keeps them."""
    dense = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    for weight in (dense.to_sparse(), dense.to_sparse_csr()):
        model = nn.Module()
        model.weight = nn.Parameter(weight)
        assert measure_params([model], nonzero=True).value == 1
    linear = nn.Linear(2, 2, bias=False)
    linear.weight.data = dense
    quantised = torch.ao.quantization.quantize_dynamic(nn.Sequential(linear), {nn.Linear})
    assert measure_params([quantised], nonzero=True).value == 1


def test_nonzero_of_a_model_on_meta_is_unmeasured():
    """It has no values to count."""
    found = measure_params([nn.Linear(2, 2, device="meta")], nonzero=True)
    assert found.unmeasured
    assert found.reason == "Linear is on meta and has no values"
