"""Products of matrices and vectors, forward and backward, in all the forms that torch has for them.

Outer products and `vecdot` are dispatched as elementwise products and sums, and cost nothing; so do
the gradients of a dot product. With two operands that both need a gradient, a product of matrices
comes three times in training.
"""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's name

import pytest_nnscale

N, K, M, B = 2, 3, 4, 5  # rows, inner, columns, batch
MM = 2 * N * K * M
BMM = B * MM
AB = torch.randn(N, K), torch.randn(K, M)
CAB = torch.randn(N, M), *AB
BATCHES = torch.randn(B, N, K), torch.randn(B, K, M)
SQUARE = torch.randn(3, 3)
CUBE = 2 * 3**3


def into(function, *shape, dtype=None):
    """Return the function with an output to write to, made anew in each call."""
    return lambda *args: function(*args, out=torch.empty(shape, dtype=dtype))


def power(n):
    return lambda a: torch.linalg.matrix_power(a, n)


def einsum(equation):
    return lambda *operands: torch.einsum(equation, *operands)


def bilinear(rows=2, first=3, second=4, out=5):
    """Forward; and backward, which loops over outputs for the gradient of the first operand."""
    pairs = 2 * rows * out * first * second
    outputs, mixed = 2 * rows * out * second, 2 * rows * out * first
    return pairs + outputs, 2 * pairs + (mixed + pairs) + (pairs + outputs)


# What is called, with what, its FLOPs, and those of its backward when all operands need gradients.
FORMS = {
    "addmm": (torch.addmm, CAB, MM, 2 * MM),
    "addmm in place": (lambda c, a, b: c.clone().addmm_(a, b), CAB, MM, 2 * MM),
    "baddbmm in place": (
        lambda c, a, b: c.clone().baddbmm_(a, b),
        (torch.randn(B, N, M), *BATCHES),
        BMM,
        2 * BMM,
    ),
    "addbmm in place": (
        lambda c, a, b: c.clone().addbmm_(a, b),
        (torch.randn(N, M), *BATCHES),
        BMM,
        2 * BMM,
    ),
    "addmv in place": (
        lambda c, a, b: c.clone().addmv_(a, b),
        (torch.randn(N), torch.randn(N, K), torch.randn(K)),
        2 * N * K,
        2 * N * K,
    ),
    "addr in place": (
        lambda c, a, b: c.clone().addr_(a, b),
        (torch.randn(3, 4), torch.randn(3), torch.randn(4)),
        2 * 12,
        2 * 2 * 12,
    ),
    "bmm": (torch.bmm, BATCHES, BMM, 2 * BMM),
    # The gradient of the matrix is an outer product.
    "mv": (torch.mv, (torch.randn(N, K), torch.randn(K)), 2 * N * K, 2 * N * K),
    "dot": (torch.dot, (torch.randn(9), torch.randn(9)), 2 * 9, 0),
    "complex vdot": (
        torch.vdot,
        (torch.randn(9, dtype=torch.cfloat), torch.randn(9, dtype=torch.cfloat)),
        4 * 2 * 9,
        0,
    ),
    "complex mm": (
        torch.mm,
        (torch.randn(N, K, dtype=torch.cfloat), torch.randn(K, M, dtype=torch.cfloat)),
        4 * MM,
        2 * 4 * MM,
    ),
    "column by row": (torch.mm, (torch.randn(3, 1), torch.randn(1, 4)), 2 * 12, 2 * 2 * 12),
    "outer": (torch.outer, (torch.randn(3), torch.randn(4)), 0, 0),
    "einsum, outer": (einsum("i,j->ij"), (torch.randn(3), torch.randn(4)), 0, 0),
    "kron": (torch.kron, AB, 0, 0),
    "vecdot": (torch.linalg.vecdot, (torch.randn(4, 9), torch.randn(4, 9)), 0, 0),
    "inner": (torch.inner, (torch.randn(4, 9), torch.randn(3, 9)), 2 * 108, 2 * 2 * 108),
    "matrices by a vector": (torch.matmul, (torch.randn(B, N, K), torch.randn(K)), 60, 60),
    "a vector by matrices": (torch.matmul, (torch.randn(K), torch.randn(B, K, M)), 120, 120),
    "batches by one matrix": (torch.matmul, (BATCHES[0], AB[1]), BMM, 2 * BMM),
    "batches by batches": (
        torch.matmul,
        (torch.randn(B, 1, N, K), torch.randn(6, K, M)),
        6 * BMM,
        2 * 6 * BMM,
    ),
    "einsum": (einsum("ij,jk->ik"), AB, MM, 2 * MM),
    "einsum of batches": (einsum("bij,bjk->bik"), BATCHES, BMM, 2 * BMM),
    "einsum to a number": (einsum("ij,ij->"), (AB[0], AB[0]), 2 * N * K, 2 * 2 * N * K),
    "einsum of rows": (einsum("bi,bi->b"), (AB[0], AB[0]), 2 * N * K, 2 * 2 * N * K),
    "einsum without a sum": (einsum("bi,bi->bi"), (AB[0], AB[0]), 0, 0),
    "einsum, diagonal": (einsum("ii->i"), (SQUARE,), 0, 0),
    "einsum of three": (  # (a b) c is the cheaper order too
        einsum("ij,jk,kl->il"),
        (*AB, torch.randn(M, 5)),
        MM + 2 * N * M * 5,
        2 * (MM + 2 * N * M * 5),
    ),
    "tensordot": (torch.tensordot, (torch.randn(2, 3, 4), torch.randn(3, 4, 5)), 240, 480),
    "tensordot over nothing": (
        lambda a, b: torch.tensordot(a, b, dims=0),
        (torch.randn(2, 3), torch.randn(4)),
        2 * 6 * 4,
        2 * 2 * 6 * 4,
    ),
    "chain_matmul": (torch.chain_matmul, AB, MM, 2 * MM),
    "multi_dot": (
        lambda *matrices: torch.linalg.multi_dot(matrices),
        (torch.randn(2, 10), torch.randn(10, 3), torch.randn(3, 20)),
        2 * 2 * 10 * 3 + 2 * 2 * 3 * 20,
        2 * (2 * 2 * 10 * 3 + 2 * 2 * 3 * 20),
    ),
    "covariance": (torch.cov, (torch.randn(3, 9),), 2 * 3 * 9 * 3, 2 * 2 * 3 * 9 * 3),
    "power 0": (power(0), (SQUARE,), 0, 0),
    "power 1": (power(1), (SQUARE,), 0, 0),
    "power 2": (power(2), (SQUARE,), CUBE, 2 * CUBE),
    "power 3": (power(3), (SQUARE,), 2 * CUBE, 4 * CUBE),
    "power 5": (power(5), (SQUARE,), 3 * CUBE, 6 * CUBE),  # two squares, and by the matrix
    "power 10": (power(10), (SQUARE,), 4 * CUBE, 8 * CUBE),  # three squares, and the second's
    "powers of a batch": (power(7), (torch.randn(2, 3, 3),), 2 * 4 * CUBE, 2 * 8 * CUBE),
    "power -2": (power(-2), (torch.eye(3),), 2 * CUBE, 4 * CUBE),  # an inverse, and its square
    "bilinear": (nn.Bilinear(3, 4, 5), (torch.randn(2, 3), torch.randn(2, 4)), *bilinear()),
    "affine_grid": (
        lambda theta: F.affine_grid(theta, [2, 1, 4, 5], align_corners=False),
        (torch.randn(2, 2, 3),),
        2 * 3 * 2 * 20 * 2,
        2 * 3 * 2 * 20 * 2,
    ),
    "distances by a product": (
        torch.cdist,
        (torch.randn(30, 3), torch.randn(40, 3)),
        2 * 30 * 40 * (3 + 2),
        2 * 2 * 30 * 40 * 3,
    ),
    "distances by a product, asked for": (
        lambda a, b: torch.cdist(a, b, compute_mode="use_mm_for_euclid_dist"),
        (torch.randn(4, 3), torch.randn(5, 3)),
        2 * 4 * 5 * (3 + 2),
        2 * 2 * 4 * 5 * 3,
    ),
    "distances one by one": (torch.cdist, (torch.randn(4, 3), torch.randn(5, 3)), 0, 0),
    "other distances": (
        lambda a, b: torch.cdist(a, b, p=1),
        (torch.randn(30, 3), torch.randn(40, 3)),
        0,
        0,
    ),
    "distances of one set": (F.pdist, (torch.randn(30, 3),), 0, 0),
    "cosine similarity": (F.cosine_similarity, (AB[0], AB[0]), 0, 0),
}

# Those that write to a given output, which autograd refuses.
INTO = {
    "mm": (into(torch.mm, N, M), AB, MM),
    "bmm": (into(torch.bmm, B, N, M), BATCHES, BMM),
    "matmul": (into(torch.matmul, N, M), AB, MM),
    "broadcast matmul": (into(torch.matmul, B, N, M), (BATCHES[0], AB[1]), BMM),
    "addmm": (into(torch.addmm, N, M), CAB, MM),
    "baddbmm": (into(torch.baddbmm, B, N, M), (torch.randn(B, N, M), *BATCHES), BMM),
    "addbmm": (into(torch.addbmm, N, M), (torch.randn(N, M), *BATCHES), BMM),
    "mv": (into(torch.mv, N), (torch.randn(N, K), torch.randn(K)), 2 * N * K),
    "addmv": (into(torch.addmv, N), (torch.randn(N), AB[0], torch.randn(K)), 2 * N * K),
    "dot": (into(torch.dot), (torch.randn(9), torch.randn(9)), 2 * 9),
    "vdot": (into(torch.vdot), (torch.randn(9), torch.randn(9)), 2 * 9),
    "inner": (into(torch.inner, 4, 3), (torch.randn(4, 9), torch.randn(3, 9)), 2 * 108),
    "addr": (into(torch.addr, 3, 4), (torch.randn(3, 4), torch.randn(3), torch.randn(4)), 24),
    "tensordot": (lambda a, b: torch.tensordot(a, b, dims=1, out=torch.empty(N, M)), AB, MM),
    "outer": (into(torch.outer, 3, 4), (torch.randn(3), torch.randn(4)), 0),
    "addmm with ReLU": (into(torch._addmm_activation, N, M), (torch.randn(M), *AB), MM),
    "linear": (into(torch._C._nn.linear, N, M), (AB[0], torch.randn(M, K)), MM),
    "multi_dot": (
        lambda *matrices: torch.linalg.multi_dot(matrices, out=torch.empty(2, 20)),
        (torch.randn(2, 10), torch.randn(10, 3), torch.randn(3, 20)),
        2 * 2 * 10 * 3 + 2 * 2 * 3 * 20,
    ),
    "matrix_power": (
        lambda a: torch.linalg.matrix_power(a, 4, out=torch.empty(3, 3)),
        (SQUARE,),
        2 * CUBE,
    ),
    "int8 product": (
        into(torch._int_mm, 32, 8, dtype=torch.int32),
        (torch.ones(32, 16, dtype=torch.int8), torch.ones(16, 8, dtype=torch.int8)),
        2 * 32 * 16 * 8,
    ),
}


def flops(model, inputs, phase="inference"):
    found = pytest_nnscale.profile(model, inputs, phase=phase, metrics=("flops",))
    assert found.uncounted == (), found.uncounted
    return found.flops


@pytest.mark.filterwarnings("ignore:torch.chain_matmul")
@pytest.mark.parametrize("name", FORMS)
def test_the_forward_has_its_closed_form(name):
    """Two FLOP for each pair of numbers that are multiplied and summed."""
    model, inputs, forward, _ = FORMS[name]
    assert flops(model, inputs) == forward


@pytest.mark.filterwarnings("ignore:torch.chain_matmul", "ignore:An output with one or more")
@pytest.mark.parametrize("name", FORMS)
def test_the_backward_has_its_closed_form(name):
    """Each product comes again once for every operand, as all of them need a gradient."""
    model, inputs, forward, backward = FORMS[name]
    inputs = tuple(x.detach().clone().requires_grad_() for x in inputs)
    assert flops(model, inputs, "training") == forward + backward


@pytest.mark.parametrize("name", INTO)
def test_an_output_to_write_to_changes_nothing(name):
    """`out=` is another overload of the operator, and as much work."""
    model, inputs, forward = INTO[name]
    assert flops(model, inputs) == forward
    with torch.inference_mode(), pytest_nnscale.count() as counting:
        model(*inputs)
    assert (counting.profile.flops, counting.profile.uncounted) == (forward, ())


def test_products_grow_with_each_dimension():
    """Doubling any size doubles the count, so that no row above agrees by chance."""
    for rows, inner, columns in ((4, 3, 4), (2, 6, 4), (2, 3, 8)):
        product = flops(torch.mm, (torch.randn(rows, inner), torch.randn(inner, columns)))
        assert product == 2 * MM == 2 * math.prod((rows, inner, columns))
