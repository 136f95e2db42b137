"""Memory is the peak of live bytes in tensor storages, each once."""

import pytest
import torch
from torch import nn

from pytest_nnscale.counting.counter import Counter


def peak(run, gradients=torch.no_grad) -> int:
    with gradients(), Counter() as counter:
        run()
    return counter.count().memory_bytes


def test_mlp_without_gradients_has_its_closed_form():
    """Weights, the input, and the two largest neighbouring activations."""
    N, A, B, C = 16, 8, 64, 4
    model = nn.Sequential(nn.Linear(A, B), nn.ReLU(), nn.Linear(B, C))
    x = torch.randn(N, A)
    weights = (A * B + B) + (B * C + C)
    assert peak(lambda: model(x)) == 4 * (weights + N * A + N * B + N * B)


def test_training_holds_activations_and_gradients():
    """With gradients the hidden activation lives on, and gradients of weights come on top."""
    model = nn.Linear(8, 4)
    x = torch.randn(16, 8)
    with Counter() as counter:
        model(x).sum().backward()
    count = counter.count()
    held = 8 * 4 + 4 + 16 * 8
    # The output dies with its sum; the ones that backward starts from are no part of the forward.
    assert count.forward_memory_bytes == 4 * (held + 16 * 4 + 1)
    assert count.memory_bytes >= 4 * (held + 8 * 4 + 4 + 1)


def test_views_add_nothing():
    """A storage counts once, however many tensors look at it."""
    x = torch.randn(100)
    assert peak(lambda: (x[:50], x.view(10, 10).t(), x.expand(7, 100))) == 400


def test_what_was_there_counts_throughout_even_if_seen_late():
    """An input that is first used after the peak was alive at the peak."""
    late = torch.randn(1000)

    def run():
        torch.zeros(500)
        late + 1

    assert peak(run) == 4000 + 4000
    assert peak(lambda: (torch.zeros(5000), late.sum())) == 20000 + 4000 + 4


def test_what_is_freed_makes_room():
    """A chain of temporaries peaks at two of them."""

    def run():
        x = torch.zeros(100)
        for _ in range(10):
            x = x + 1

    assert peak(run) == 800


def test_weights_of_uncalled_parts_count():
    """A model is in memory whole, whichever of its parts runs."""

    class Sparing(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(2, 2), nn.Linear(10, 10)
            self.register_buffer("table", torch.zeros(1000))

        def forward(self, x):
            return self.used(x)

    model, x = Sparing(), torch.ones(1, 2)
    assert peak(lambda: model(x)) == 4 * (6 + 110 + 1000 + 2 + 2)


def test_memory_of_a_module_includes_its_weights():
    """The row of a module holds its weights and what it made that is alive at the peak."""
    model = nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 2))
    with torch.no_grad(), Counter() as counter:
        model(torch.randn(16, 8))
    rows = {row.path: row for row in counter.count().modules}
    assert rows["0"].own_memory == 4 * (8 * 64 + 64 + 16 * 64)
    assert rows["1"].own_memory == 4 * (64 * 2 + 2 + 16 * 2)


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(4).to_sparse(),
        lambda: torch.eye(4).to_sparse_csr(),
        lambda: torch.eye(4, device="meta"),
        lambda: torch.quantize_per_tensor(torch.eye(4), 0.1, 0, torch.quint8),
        lambda: torch.eye(4).to_mkldnn(),
        lambda: torch.nested.nested_tensor([torch.eye(4)], layout=torch.jagged),
    ],
)
def test_unusual_tensors_count_and_do_not_crash(make):
    """Sparse, meta, quantised, opaque and nested tensors have bytes too."""
    tensor = make()
    assert peak(lambda: tensor.clone()) > 0
    assert peak(make) > 0


def test_meta_tensors_count_with_their_nominal_size():
    """A model on the meta device has the memory of a real one."""
    with torch.device("meta"):
        model, x = nn.Linear(8, 4), torch.empty(16, 8)
    real, y = nn.Linear(8, 4), torch.empty(16, 8)
    assert peak(lambda: model(x)) == peak(lambda: real(y)) == 4 * (36 + 128 + 64)
