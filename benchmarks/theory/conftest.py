"""What every model of the theory runs under."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def fixed_weights() -> Iterator[None]:
    """The same random weights in every run, and no graph held for a backward pass."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        yield
