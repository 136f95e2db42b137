"""Parameters and size: what a model keeps, in every form it keeps it."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import pytest_nnscale


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
    from pytest_nnscale.meters import stored

    def refuse(pack):
        raise RuntimeError("cannot be opened")

    monkeypatch.setattr(stored, "_open", refuse)
    measurement = pytest_nnscale.profile(quantised()).measurement("params")
    assert (measurement.lower, measurement.upper) == (0, None)
    assert "0._packed_params keeps weights packed" in measurement.reason
