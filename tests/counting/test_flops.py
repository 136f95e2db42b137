"""Complex, sparse and nested operands cost what they do, not what their shapes say."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import pytest_nnscale
from pytest_nnscale.counting.counter import Count, Counter
from pytest_nnscale.counting.flops import NoCount, flops_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # sparse and nested are in beta


def counted(run) -> Count:
    with Counter() as counter:
        run()
    return counter.count()


def test_complex_product_costs_four_real_ones():
    """A complex multiply-accumulate is four real multiplies and as many adds: 8 FLOP."""
    left, right = torch.randn(3, 4, dtype=torch.cfloat), torch.randn(4, 5, dtype=torch.cfloat)
    assert counted(lambda: left @ right).flops == 8 * 3 * 4 * 5
    assert counted(lambda: torch.einsum("ij,jk->ik", left, right)).flops == 8 * 3 * 4 * 5


def test_complex_convolution_costs_the_three_real_ones_that_run():
    """torch makes three real convolutions of a complex one, and these count."""
    image, kernel = (torch.randn(1, 1, n, n, dtype=torch.cfloat) for n in (5, 3))
    assert counted(lambda: functional.conv2d(image, kernel)).flops == 3 * 2 * 9 * 9


@torch.library.custom_op("nnscale_tests::squared", mutates_args=())
def squared(x: torch.Tensor) -> torch.Tensor:
    return x * x


@pytest_nnscale.flop_formula(squared)
def _squared(shape, **_):
    return shape.numel()


def test_formula_of_a_user_is_taken_at_its_word_for_complex_numbers():
    """Who registers a formula knows what it is of."""
    assert counted(lambda: squared(torch.ones(3, dtype=torch.cfloat))).flops == 3


SPARSE = {
    "coo": torch.Tensor.to_sparse,
    "csr": torch.Tensor.to_sparse_csr,
    "csc": torch.Tensor.to_sparse_csc,
}


@pytest.mark.parametrize("layout", SPARSE)
def test_sparse_product_costs_its_stored_values(layout):
    """Ten stored values and four columns are eighty FLOP, on whichever side, with a bias or not."""
    sparse, dense = SPARSE[layout](torch.eye(10)), torch.randn(10, 4)
    wide, bias = torch.randn(4, 10), torch.zeros(10, 4)
    for run in (
        lambda: sparse @ dense,
        lambda: wide @ sparse,
        lambda: torch.addmm(bias, sparse, dense),
        lambda: torch.sparse.mm(sparse, dense),
    ):
        count = counted(run)
        assert (count.flops, count.uncounted) == (2 * 10 * 4, ())
    assert counted(lambda: sparse @ dense[:, 0]).flops == 2 * 10


def test_block_sparse_product_costs_all_of_its_blocks():
    """What is stored is multiplied, zeros in a block included."""
    sparse = torch.eye(10).to_sparse_bsr((2, 2))
    assert counted(lambda: sparse @ torch.randn(10, 4)).flops == 2 * (5 * 2 * 2) * 4


@pytest.mark.parametrize("layout", SPARSE)
def test_product_of_two_sparse_matrices_costs_the_pairs_that_meet(layout):
    """Each value of a column meets each of that row: here 1 x 2, 2 x 0, 1 x 1 and 0 x 3."""
    left = SPARSE[layout](torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0], [0, 1, 0, 0]]))
    right = SPARSE[layout](torch.tensor([[1.0, 1, 0], [0, 0, 0], [0, 1, 0], [1, 1, 1]]))
    count = counted(lambda: left @ right)
    assert (count.flops, count.uncounted) == (2 * (1 * 2 + 2 * 0 + 1 * 1), ())


def test_product_of_sparse_matrices_is_unknown_where_nobody_knows_their_places():
    """Its cost depends on where the values are, which a shape does not tell."""
    places, values = torch.empty(2, 3, dtype=torch.long), torch.empty(3)
    sparse = torch.sparse_coo_tensor(places, values, (4, 4), device="meta")
    with pytest.raises(NoCount, match=r"aten\.mm"):
        flops_of(torch.ops.aten.mm.default, (sparse, sparse), {}, None)


def ragged(*shape, lengths=(2, 3), **options):
    return torch.nested.nested_tensor([torch.randn(n, *shape) for n in lengths], **options)


@pytest.mark.parametrize("gradients", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_nested_model_runs_and_counts_its_components(gradients):
    """Two sequences of two and three steps cost as much as five steps."""
    model = nn.Sequential(
        nn.Linear(8, 8), nn.LayerNorm(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 4)
    )
    with gradients():
        count = counted(lambda: model(ragged(8)))
    assert (count.flops, count.uncounted) == (2 * 5 * 8 * (8 + 4), ())


def test_backward_of_a_nested_linear_counts_its_components():
    """Only the gradient of the weight is asked for: as much as the forward."""
    model, x = nn.Linear(8, 4), ragged(8)
    count = counted(lambda: sum(part.sum() for part in model(x).unbind()).backward())
    assert (count.flops, count.forward_flops, count.uncounted) == (2 * 320, 320, ())


def test_jagged_attention_runs_and_counts_its_components():
    """Each sequence attends to itself alone, twice as many products as its length squared."""
    query = ragged(2, 8, layout=torch.jagged).transpose(1, 2)
    count = counted(lambda: functional.scaled_dot_product_attention(query, query, query))
    assert (count.flops, count.uncounted) == (2 * 2 * 2 * (2 * 2 + 3 * 3) * 8, ())


def test_fused_attention_of_nested_sequences_runs_and_counts_its_components():
    """Each sequence is projected and attends to itself, in one operator for all."""
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = ragged(8)
    with torch.no_grad():
        count = counted(lambda: attention(x, x, x, need_weights=False))
    assert count.uncounted == ()
    assert count.flops == 2 * 5 * 4 * 8 * 8 + 2 * 2 * (2 * 2 + 3 * 3) * 8


def test_nested_operands_of_what_counts_none_are_unknown():
    """An operator is named rather than counted by shapes that its operand does not have."""
    with pytest.raises(NoCount, match=r"aten\.addmm"):
        flops_of(torch.ops.aten.addmm.default, (ragged(8), ragged(8), ragged(8)), {}, None)
