"""What every model of the breadth runs under."""

import gc
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def one_model_at_a_time() -> Iterator[None]:
    """Fixed random weights and inputs, and no model left in memory when the next one is built."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        yield
    gc.collect()
