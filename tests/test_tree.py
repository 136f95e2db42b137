"""The tree of modules: each once, at the path that named_modules gives it, with sums over it."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from pytest_nnscale import count, profile
from pytest_nnscale.tree import ModuleTree


def nested() -> nn.Module:
    shared = nn.Linear(2, 2)
    model = nn.Sequential(nn.Sequential(shared, nn.ReLU()), shared, nn.BatchNorm1d(2))
    model.register_module("missing", None)
    return model


def test_order_and_paths_are_those_of_named_modules() -> None:
    """A shared module stands at its first path."""
    model = nested()
    tree = ModuleTree([model])
    assert [*zip(tree.paths, tree.modules, strict=True)] == [*model.named_modules()]
    assert tree.types == ["Sequential", "Sequential", "Linear", "ReLU", "BatchNorm1d"]
    assert tree.above == [0, 0, 1, 1, 0]


def test_tensors_are_kept_once_by_the_first_module_that_has_them() -> None:
    """Parameters before buffers in each."""
    model = nested()
    model[2].weight = model[0][0].bias
    kept = ModuleTree([model]).kept
    names = {
        id(tensor): name for name, tensor in [*model.named_parameters(), *model.named_buffers()]
    }
    assert [names[id(tensor)] for tensor in kept.tensors] == [
        "0.0.weight", "0.0.bias", "2.bias", "2.running_mean", "2.running_var", "2.num_batches_tracked",
    ]  # fmt: skip
    assert kept.rows == [2, 2, 4, 4, 4, 4]
    assert kept.are_parameters == [True, True, True, False, False, False]


def test_several_roots_go_by_their_classes_below_a_row_of_no_module() -> None:
    """A second one of a class has a number."""
    one, two, other = nn.Linear(2, 2), nn.Linear(2, 2), nested()
    tree = ModuleTree([one, two, other])
    assert tree.paths[:4] == ["", "Linear", "Linear#2", "Sequential"]
    assert "Sequential.0.1" in tree.paths
    assert tree.types[0] == ""
    assert [*map(id, tree.owners)][:3] == [id(one), id(one), id(two)]
    assert ModuleTree([]).paths == [""]


def test_what_was_compiled_goes_by_the_path_of_its_shell() -> None:
    """At the top and below."""
    inner = nn.Sequential(nn.Linear(2, 2))
    model = nn.Sequential(torch.compile(inner))
    tree = ModuleTree([model])
    assert tree.paths == ["", "0", "0.0"]
    assert tree.modules == [model, inner, inner[0]]
    assert tree.shells == [model[0]]
    assert ModuleTree([torch.compile(inner)]).modules == [inner, inner[0]]


def test_sums_are_over_all_below() -> None:
    """In one pass from the last row to the first."""
    tree = ModuleTree([nested()])
    assert tree.add_up([1, 0, 10, 100, 1000]) == [1111, 110, 10, 100, 1000]
    assert tree.with_above([3]) == [0, 1, 3]
    assert tree.with_above([]) == [0]


def test_what_nobody_registered_hangs_by_its_type() -> None:
    """Two of one type below one module are one row."""
    tree = ModuleTree([nested()])
    first, second = tree.hang(nn.Linear(1, 1), 1), tree.hang(nn.Linear(1, 1), 1)
    assert (first, second) == (5, 5)
    assert (tree.paths[5], tree.above[5]) == ("0.Linear", 1)


@pytest.mark.parametrize("change", ["added", "removed", "replaced", "swapped"])
def test_a_tree_tells_that_it_holds_no_more(change: str) -> None:
    """Whatever was done to the modules registered in each other."""
    model = nested()
    tree = ModuleTree([model])
    assert tree.holds()
    if change == "added":
        model[0].append(nn.ReLU())
    elif change == "removed":
        del model[0][1]
    elif change == "replaced":
        model[0][1] = nn.ReLU()
    else:
        model[0], model[2] = model[2], model[0]
    assert not tree.holds()


def test_nothing_of_a_profile_or_a_count_keeps_the_model() -> None:
    """Without waiting for the collector, which would look at every object there is."""
    gc.collect()
    gc.disable()
    try:
        for take in (_profiled, _counted):
            model = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
            reference = weakref.ref(model)
            result = take(model)
            del model
            assert reference() is None, take.__name__
            assert result
    finally:
        gc.enable()


def _profiled(model: nn.Module) -> object:
    return profile(model, args=(torch.rand(2, 8),)).flops


def _counted(model: nn.Module) -> object:
    with count() as counting:
        model(torch.rand(2, 8))
    return counting.profile.flops
