"""What a model keeps in caches outside itself is no tensor of a trace."""

import functools

import pytest
import torch
from torch import nn

from pytest_nnscale import profile

SIZE = 200  # above what is computed for its values
SHARED: dict[str, torch.Tensor] = {}
KEPT: list[torch.Tensor] = []
MASK: torch.Tensor | None = None


@functools.lru_cache
def table() -> torch.Tensor:
    return torch.ones(SIZE, SIZE)


@functools.cache
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(SIZE, SIZE), torch.ones(SIZE, SIZE)


class Lazily:
    mask: torch.Tensor | None = None


LAZILY = Lazily()
LAZILY.mask = None


def filled_once():
    kept = None

    def get():
        nonlocal kept
        if kept is None:
            kept = torch.ones(SIZE, SIZE)
        return kept

    return get


CLOSURE = filled_once()


def from_dict():
    if "mask" not in SHARED:
        SHARED["mask"] = torch.ones(SIZE, SIZE)
    return SHARED["mask"]


def from_global():
    global MASK
    if MASK is None:
        MASK = torch.ones(SIZE, SIZE)
    return MASK


def from_object():
    if LAZILY.mask is None:
        LAZILY.mask = torch.ones(SIZE, SIZE)
    return LAZILY.mask


def into_list():
    KEPT.append(torch.ones(SIZE, SIZE))
    return KEPT[-1]


CACHES = {
    "lru_cache": table,
    "cache of tuples": lambda: pair()[1],
    "dict": from_dict,
    "global": from_global,
    "object": from_object,
    "closure": CLOSURE,
    "list": into_list,
}


class Caching(nn.Module):
    def __init__(self, cache):
        super().__init__()
        self.inner = nn.Linear(SIZE, SIZE)
        self.cache = cache

    def forward(self, x):
        return self.inner(x) + self.cache()


@pytest.mark.parametrize("name", CACHES)
def test_a_cache_that_a_trace_filled_is_filled_by_a_run(name):
    """The model works afterwards, and the profile says why it was run."""
    model, x = Caching(CACHES[name]), torch.ones(SIZE, SIZE)
    found = profile(model, (x,))
    assert found.method == "executed"
    assert "kept in a cache" in found.measurement("flops").notes[0]
    assert found.flops == 2 * SIZE**3
    assert torch.equal(model(x), model.inner(x) + 1)


@pytest.mark.parametrize("name", ["lru_cache", "dict", "global", "object", "closure"])
def test_a_cache_that_is_filled_is_no_hindrance(name):
    """A model that was called before is traced."""
    model, x = Caching(CACHES[name]), torch.ones(SIZE, SIZE)
    model(x)
    assert profile(model, (x,)).method == "traced"


def test_what_others_cached_stays():
    """Only what the trace put into a dict is taken out of it."""
    SHARED.clear()
    SHARED["other"] = mine = torch.zeros(3)
    profile(Caching(from_dict), (torch.ones(SIZE, SIZE),))
    assert SHARED["other"] is mine


def test_a_cycle_is_no_cache():
    """Tensors that die with the next collection leave the trace what it is."""

    class Circular(nn.Module):
        def forward(self, x):
            found = [x + 1]
            found.append(found)
            return x + 1

    assert profile(Circular(), (torch.ones(SIZE, SIZE),)).method == "traced"
