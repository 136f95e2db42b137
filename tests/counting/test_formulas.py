"""FLOPs have closed forms; 1 multiply-accumulate = 2 FLOP."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import pytest_nnscale
from pytest_nnscale.counting.counter import Count, Counter
from pytest_nnscale.errors import BadOption, BadWorkload


def counted(run) -> Count:
    with Counter() as counter:
        run()
    return counter.count()


CONVOLUTIONS = {
    # name: (module, input, output positions, MACs of each position)
    "plain": (nn.Conv2d(3, 8, 3), (2, 3, 10, 12), 2 * 8 * 8 * 10, 3 * 9),
    "strided": (nn.Conv2d(3, 8, 3, stride=2), (2, 3, 11, 11), 2 * 8 * 5 * 5, 3 * 9),
    "dilated": (nn.Conv2d(3, 8, 3, dilation=2), (1, 3, 10, 10), 8 * 6 * 6, 3 * 9),
    "grouped": (nn.Conv2d(6, 12, 3, groups=3), (2, 6, 8, 8), 2 * 12 * 6 * 6, 2 * 9),
    "depthwise": (nn.Conv2d(6, 6, 3, groups=6), (1, 6, 8, 8), 6 * 6 * 6, 9),
    "one-dimensional": (nn.Conv1d(4, 5, 3, padding=1), (2, 4, 9), 2 * 5 * 9, 4 * 3),
    "three-dimensional": (nn.Conv3d(2, 3, 2), (1, 2, 4, 4, 4), 3 * 27, 2 * 8),
    # Each input position meets the whole kernel.
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), (2, 4, 5, 5), 2 * 4 * 5 * 5, 6 * 9),
    "transposed, grouped": (nn.ConvTranspose2d(4, 6, 3, groups=2), (1, 4, 5, 5), 100, 3 * 9),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_has_its_closed_form(name):
    """A convolution costs two FLOP per position and kernel element that meets it."""
    module, shape, positions, macs = CONVOLUTIONS[name]
    count = counted(lambda: module(torch.randn(shape)))
    assert count.flops == 2 * positions * macs
    assert count.uncounted == ()


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_backward_costs_its_forward_once_per_gradient(name):
    """Input and weight gradient each cost what the forward costs, also with groups."""
    module, shape, positions, macs = CONVOLUTIONS[name]
    image = torch.randn(shape, requires_grad=True)
    count = counted(lambda: module(image).sum().backward())
    assert count.flops == 3 * 2 * positions * macs
    assert count.forward_flops == 2 * positions * macs


@pytest.mark.parametrize("gradients", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_linear_has_its_closed_form(gradients):
    """A linear layer costs 2 x batch x in x out in every grad mode; the bias costs nothing."""
    with gradients():
        count = counted(lambda: nn.Linear(5, 7)(torch.randn(3, 4, 5)))
    assert count.flops == 2 * 12 * 5 * 7


PRODUCTS = {
    "bmm": (lambda: torch.bmm(torch.ones(2, 3, 4), torch.ones(2, 4, 5)), 2 * 2 * 3 * 4 * 5),
    "einsum": (
        lambda: torch.einsum("bij,bjk->bik", torch.ones(2, 3, 4), torch.ones(2, 4, 5)),
        2 * 2 * 3 * 4 * 5,
    ),
    "mv": (lambda: torch.ones(3, 4) @ torch.ones(4), 2 * 12),
    "addmv": (lambda: torch.addmv(torch.ones(3), torch.ones(3, 4), torch.ones(4)), 2 * 12),
    "dot": (lambda: torch.ones(9) @ torch.ones(9), 2 * 9),
    "vdot": (lambda: torch.vdot(torch.ones(9), torch.ones(9)), 2 * 9),
    "addr": (lambda: torch.addr(torch.ones(3, 4), torch.ones(3), torch.ones(4)), 2 * 12),
    "addbmm": (
        lambda: torch.addbmm(torch.ones(3, 5), torch.ones(2, 3, 4), torch.ones(2, 4, 5)),
        2 * 2 * 3 * 4 * 5,
    ),
    "_int_mm": (
        lambda: torch._int_mm(
            torch.ones(32, 16, dtype=torch.int8), torch.ones(16, 8, dtype=torch.int8)
        ),
        2 * 32 * 16 * 8,
    ),
    "addmm_": (lambda: torch.ones(3, 5).addmm_(torch.ones(3, 4), torch.ones(4, 5)), 2 * 60),
    "mm.out": (
        lambda: torch.mm(torch.ones(3, 4), torch.ones(4, 5), out=torch.empty(3, 5)),
        2 * 60,
    ),
    "affine_grid": (
        lambda: functional.affine_grid(torch.ones(2, 2, 3), [2, 1, 4, 5], align_corners=False),
        2 * 3 * 2 * 4 * 5 * 2,
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_product_has_its_closed_form(name):
    """Products of matrices and vectors cost two FLOP per multiplied pair."""
    run, flops = PRODUCTS[name]
    count = counted(run)
    assert (count.flops, count.uncounted) == (flops, ())


def test_attention_has_its_closed_form():
    """Attention is two products forward, and five (the scores once more) in its backward."""
    B, H, L, S, D = 2, 3, 8, 16, 4
    query = torch.randn(B, H, L, D, requires_grad=True)
    key, value = (torch.randn(B, H, S, D, requires_grad=True) for _ in range(2))
    attend = functional.scaled_dot_product_attention
    count = counted(lambda: attend(query, key, value).sum().backward())
    one = 2 * B * H * L * S * D
    assert count.forward_flops == 2 * one
    assert count.flops == (2 + 5) * one
    assert count.uncounted == ()


def test_training_an_mlp_costs_three_forwards_less_the_first_input_gradient():
    """Each layer pays its forward twice more, except that nobody asks for the input's gradient."""
    N, A, B, C = 4, 6, 10, 3
    model = nn.Sequential(nn.Linear(A, B), nn.ReLU(), nn.Linear(B, C))
    count = counted(lambda: model(torch.randn(N, A)).sum().backward())
    first, second = 2 * N * A * B, 2 * N * B * C
    assert count.forward_flops == first + second
    assert count.flops == 3 * (first + second) - first
    assert count.backward


@torch.library.custom_op("nnscale_tests::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@torch.library.custom_op("nnscale_tests::thrice", mutates_args=())
def thrice(x: torch.Tensor) -> torch.Tensor:
    return x * 3


@torch.library.custom_op("nnscale_tests::broken", mutates_args=())
def broken(x: torch.Tensor) -> torch.Tensor:
    return x * 4


@pytest_nnscale.flop_formula(torch.ops.nnscale_tests.twice)
def _twice(shape, *, out_shape=None):
    assert shape == out_shape
    return shape.numel()


@pytest_nnscale.flop_formula(broken)
def _broken(shape, **_):
    raise ZeroDivisionError("no number of heads")


def test_formula_of_a_user_counts():
    """A formula registered by the user is called with shapes and makes its operator counted."""
    count = counted(lambda: twice(torch.ones(3, 4)))
    assert (count.flops, count.uncounted) == (12, ())


def test_formula_of_torch_counts():
    """A formula registered with torch's own decorator is honoured."""
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    register_flop_formula(torch.ops.nnscale_tests.thrice)(lambda shape, **_: 7 * shape.numel())
    try:
        assert counted(lambda: thrice(torch.ones(5))).flops == 35
    finally:
        del flop_registry[torch.ops.nnscale_tests.thrice]
    assert counted(lambda: thrice(torch.ones(5))).uncounted != ()


def test_formula_that_raises_leaves_the_operator_unknown_and_says_why():
    """An error in a formula neither breaks the model nor counts as zero."""
    (unknown,) = counted(lambda: broken(torch.ones(5))).uncounted
    assert unknown.operator == "nnscale_tests::broken"
    assert "ZeroDivisionError: no number of heads" in unknown.remedy


def test_second_formula_for_an_operator_is_refused():
    """Two formulas for one operator are a mistake that names the first."""
    with pytest.raises(BadOption, match="_twice"):
        pytest_nnscale.flop_formula(torch.ops.nnscale_tests.twice)(lambda shape, **_: 0)


@pytest.mark.parametrize("nonsense", [torch.matmul, "aten::mm", 3])
def test_formula_for_what_is_no_operator_is_refused(nonsense):
    """Only operators of torch.ops have formulas."""
    with pytest.raises(BadWorkload, match=r"torch\.ops"):
        pytest_nnscale.flop_formula(nonsense)


def test_attention_counts_the_same_fused_and_unfused():
    """Under no_grad MultiheadAttention is one operator; its count is that of its parts."""
    attention = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    x = torch.rand(2, 5, 16)

    def flops(*, grad):
        with torch.set_grad_enabled(grad), Counter() as counter:
            attention(x, x, x, need_weights=False)
        count = counter.count()
        assert count.uncounted == ()
        return count.flops

    closed_form = 2 * 2 * 5 * 16 * 16 * 4 + 2 * 2 * 2 * 5 * 5 * 16
    assert flops(grad=False) == flops(grad=True) == closed_form
