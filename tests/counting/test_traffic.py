"""The least that a run has to do: never more bytes than are moved, and contractions by what computes them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from pytest_nnscale.counting.traffic import Contraction, Traffic, least_traffic

F32 = Contraction("product", "float32")


def seen(run: Callable[[], object], *, grad: bool = False) -> Traffic:
    with torch.set_grad_enabled(grad):
        return least_traffic(run, "cpu")


def test_a_linear_layer_reads_weights_and_input_and_writes_its_output() -> None:
    """Each once; 2 FLOP for each multiply-accumulate."""
    layer, x = nn.Linear(100, 50), torch.rand(8, 100)
    found = seen(lambda: layer(x))
    assert found.flops == {F32: 2 * 8 * 100 * 50}
    assert found.read_bytes == 4 * (100 * 50 + 50 + 8 * 100)
    assert found.written_bytes == 4 * 8 * 50
    assert found.nbytes == found.read_bytes + found.written_bytes
    assert found.uncounted == ""


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_it_is_the_same_in_every_grad_mode(mode: type) -> None:
    """Without autograd operators come whole, with it taken apart."""
    layer, x = nn.Linear(100, 50), torch.rand(8, 100)
    with mode():
        found = least_traffic(lambda: layer(x), "cpu")
    assert (found.flops, found.nbytes) == ({F32: 80_000}, 4 * (5050 + 800 + 400))


def test_what_is_made_and_used_up_in_between_does_not_count() -> None:
    """It may never have left a cache."""
    layers = nn.Sequential(nn.Linear(16, 4096), nn.ReLU(), nn.Linear(4096, 16))
    x = torch.rand(1024, 16)
    weights = 4 * sum(p.numel() for p in layers.parameters())
    found = seen(lambda: layers(x))
    assert found.nbytes == weights + 2 * x.nbytes


def test_weights_that_are_read_twice_count_once() -> None:
    """The second time they may come from a cache."""
    layer, x = nn.Linear(64, 64, bias=False), torch.rand(1, 64)
    found = seen(lambda: layer(layer(x)))
    assert found.read_bytes == layer.weight.nbytes + x.nbytes


def test_views_of_one_storage_count_where_they_do_not_overlap() -> None:
    """As the thirds of an attention's weights, and halves of which each is read."""
    whole = torch.rand(100)
    assert seen(lambda: whole[:50] + whole[50:]).read_bytes == 400
    assert seen(lambda: whole[:60] + whole[40:]).read_bytes == 400
    assert seen(lambda: whole[:10] + whole[:10]).read_bytes == 40


def test_an_expanded_tensor_is_no_more_than_what_it_repeats() -> None:
    """A thousand rows that are one."""
    row = torch.rand(1, 1000)
    assert seen(lambda: row.expand(1000, 1000) + 1).read_bytes == 4000


def test_a_strided_view_is_what_it_shows() -> None:
    """Every second number."""
    x = torch.rand(1000)
    assert seen(lambda: x[::2] + 1).read_bytes == 2000


def test_rows_that_are_looked_up_are_not_the_whole_table() -> None:
    """Of ten thousand words three are read: the table would make any efficiency too high."""
    table, words = nn.Embedding(10_000, 64), torch.tensor([1, 2, 3])
    found = seen(lambda: table(words))
    assert found.read_bytes < 3 * 64 * 4
    assert found.written_bytes == 3 * 64 * 4


@pytest.mark.parametrize(
    "run",
    [
        lambda big, few: big[few],
        lambda big, few: big.index_select(0, few),
        lambda big, few: big.gather(0, few[:, None]),
        lambda big, few: big.take(few),
        lambda big, few: torch.zeros_like(big)[:1].clone(),
        lambda big, few: big.new_zeros(1),
        lambda big, few: torch.empty_like(big)[:0],
        lambda big, few: big.index_add_(0, few, torch.ones(2, 64)).shape,
        lambda big, few: big.view(-1)[:1].clone(),
    ],
)
def test_what_reads_a_part_or_nothing_counts_no_whole(run: Callable[..., object]) -> None:
    """A lower bound, whatever the operator."""
    big, few = torch.rand(1000, 64), torch.tensor([1, 2])
    assert seen(lambda: run(big, few)).nbytes < 2000


def test_what_is_written_in_place_counts_once_more() -> None:
    """A cache of a model is written, and what it takes from is read."""
    cache, new = torch.zeros(8, 100), torch.rand(1, 100)
    found = seen(lambda: cache[3:4].copy_(new))
    assert (found.read_bytes, found.written_bytes) == (400, 400)


def test_an_output_in_memory_that_was_allocated_before_counts() -> None:
    """`empty` writes nothing, but who fills it does."""
    x = torch.rand(100)

    def run() -> torch.Tensor:
        out = torch.empty(200)
        out[:100].copy_(x)
        return out

    assert seen(run).written_bytes == 400


def test_gradients_are_written_and_contractions_of_the_backward_pass_counted() -> None:
    """They outlive the step."""
    layer, x = nn.Linear(100, 50), torch.rand(8, 100)

    def step() -> None:
        layer(x).sum().backward()

    found = seen(step, grad=True)
    assert found.flops == {F32: 160_000}
    assert found.written_bytes == 4 * 5050


def test_each_dtype_has_its_flops() -> None:
    """Also under autocast, where the weights are of another one than the products."""
    layer, x = nn.Linear(64, 64), torch.rand(8, 64)

    def run() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return layer(x)

    assert seen(run).flops == {Contraction("product", "bfloat16"): 2 * 8 * 64 * 64}
    doubled = layer.double()
    assert seen(lambda: doubled(x.double())).flops.keys() == {Contraction("product", "float64")}


def test_a_complex_product_is_of_real_ones() -> None:
    """Four of them, in half of its precision."""
    x = torch.rand(8, 8, dtype=torch.complex64)
    assert seen(lambda: x @ x).flops == {F32: 8 * 8**3}


def test_convolutions_are_told_from_products() -> None:
    """They go to another library, which may be set to another precision."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 4, 2)).eval()
    found = seen(lambda: net(torch.rand(1, 3, 4, 4)))
    assert found.flops == {
        Contraction("convolution", "float32"): 2 * 8 * 4 * 3 * 9,
        F32: 2 * 32 * 2,
    }


def test_compiled_code_is_seen_as_it_was_written() -> None:
    """What a compiler fuses has no operators to see."""
    layer, x = nn.Linear(100, 50), torch.rand(8, 100)
    compiled = torch.compile(layer, backend="eager")
    with torch.no_grad():
        compiled(x)
    assert seen(lambda: compiled(x)).flops == {F32: 80_000}


def test_what_lives_elsewhere_does_not_count() -> None:
    """Memory of another device has other ceilings; here it is meta."""
    layer, x = nn.Linear(100, 50, device="meta"), torch.rand(8, 100, device="meta")
    found = seen(lambda: layer(x))
    assert (found.flops, found.nbytes) == ({}, 0)


def test_an_operator_without_a_formula_is_named() -> None:
    """Its FLOPs are not zero."""
    with torch.library._scoped_library("traffic_tests", "FRAGMENT") as lib:
        lib.define("twist(Tensor x) -> Tensor")
        lib.impl("twist", lambda x: x.clone(), "CPU")
        x = torch.rand(4)
        assert seen(lambda: torch.ops.traffic_tests.twist(x)).uncounted == "traffic_tests::twist"


def test_errors_of_the_run_pass_through() -> None:
    """And no mode is left behind."""

    def run() -> None:
        torch.rand(2) @ torch.rand(3)

    with pytest.raises(RuntimeError, match="size"):
        seen(run)
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None


MODELS = {
    "encoder": (nn.TransformerEncoderLayer(64, 4, batch_first=True), torch.rand(2, 16, 64)),
    "norms": (nn.Sequential(nn.LayerNorm(64), nn.GroupNorm(4, 16)), torch.rand(2, 16, 64)),
    "recurrent": (nn.LSTM(64, 32, num_layers=2, bidirectional=True), torch.rand(5, 2, 64)),
    "convolutions": (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 4, 2)),
        torch.rand(1, 3, 16, 16),
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("grad", [False, True])
def test_a_model_reads_all_of_its_weights_and_its_input(name: str, grad: bool) -> None:
    """No layer of torch is forgotten, and none reads more than there is."""
    model, x = MODELS[name]
    held = {*model.eval().parameters(), *model.buffers()}
    most = sum(tensor.nbytes for tensor in held) + x.nbytes
    unread = sum(tensor.nbytes for tensor in model.buffers() if tensor.dtype is torch.int64)
    assert seen(lambda: model(x), grad=grad).read_bytes == most - unread
