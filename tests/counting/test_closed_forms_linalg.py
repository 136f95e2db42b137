"""Fourier transforms, dense linear algebra, and sparse products: forward and backward.

The backward of a decomposition is a handful of products and triangular solves; each row names them.
"""

import pytest
import torch
from torch import linalg as la

import pytest_nnscale

pytestmark = pytest.mark.filterwarnings("ignore")  # sparse layouts are in beta

N, R, M, K = 6, 4, 9, 3  # a square, right sides, a tall matrix
EYE, SIDES, TALL = torch.eye(N), torch.randn(N, R), torch.randn(M, K)
CUBE = N**3
LU = 2 * CUBE // 3


def spectrum(*shape):
    return torch.randn(shape, dtype=torch.cfloat)


def flops(model, *inputs, phase="inference"):
    if phase == "training":
        inputs = [x.detach().clone().requires_grad_() for x in inputs]
    found = pytest_nnscale.profile(model, inputs, phase=phase, metrics=("flops",))
    assert found.uncounted == (), found.uncounted
    return found.flops


FFT = torch.fft
# What is called, with what, the points of each transform with their log2, and half for real ones;
# then what the backward adds. It is a transform of the same size, complex where the forward's
# input was real: all frequencies then have a gradient.
TRANSFORMS = {
    "fft": (FFT.fft, spectrum(3, 16), 5 * 48 * 4, 5 * 48 * 4),
    "fft of real numbers": (FFT.fft, torch.randn(3, 16), 5 * 48 * 4 // 2, 5 * 48 * 4),
    "fft with padding": (lambda x: FFT.fft(x, n=32), spectrum(3, 16), 5 * 96 * 5, 5 * 96 * 5),
    "fft of one point": (FFT.fft, spectrum(3, 1), 0, 0),
    "ifft": (FFT.ifft, spectrum(3, 16), 5 * 48 * 4, 5 * 48 * 4),
    "rfft": (FFT.rfft, torch.randn(3, 16), 5 * 48 * 4 // 2, 5 * 48 * 4),
    "irfft": (FFT.irfft, spectrum(3, 9), 5 * 48 * 4 // 2, 5 * 48 * 4 // 2),
    "hfft": (FFT.hfft, spectrum(3, 9), 5 * 48 * 4 // 2, 5 * 48 * 4 // 2),
    "ihfft": (FFT.ihfft, torch.randn(3, 16), 5 * 48 * 4 // 2, 5 * 48 * 4),
    "fft2": (FFT.fft2, spectrum(8, 16), 5 * 128 * 7, 5 * 128 * 7),
    "rfft2": (FFT.rfft2, torch.randn(8, 16), 5 * 128 * 7 // 2, 5 * 128 * 7),
    "irfft2": (FFT.irfft2, spectrum(8, 9), 5 * 128 * 7 // 2, 5 * 128 * 7 // 2),
    # torch makes two transforms of this one, the first of the half that is there.
    "hfft2": (FFT.hfft2, spectrum(8, 9), 5 * 72 * 3 + 5 * 128 * 4 // 2, 5 * 72 * 3 + 1280),
    "fftn": (FFT.fftn, spectrum(2, 4, 8), 5 * 64 * 6, 5 * 64 * 6),
    "ifftn": (FFT.ifftn, spectrum(2, 4, 8), 5 * 64 * 6, 5 * 64 * 6),
    "rfftn": (FFT.rfftn, torch.randn(2, 4, 8), 5 * 64 * 6 // 2, 5 * 64 * 6),
    "irfftn": (FFT.irfftn, spectrum(2, 4, 5), 5 * 64 * 6 // 2, 5 * 64 * 6 // 2),
    "stft": (  # 17 windows of 16 points, four apart
        lambda x: torch.stft(x, 16, return_complex=True),
        torch.randn(64),
        5 * 17 * 16 * 4 // 2,
        5 * 17 * 16 * 4,
    ),
    "istft": (lambda x: torch.istft(x, 16), spectrum(9, 17), 5 * 17 * 16 * 4 // 2, 2720),
    "fftshift": (FFT.fftshift, spectrum(3, 16), 0, 0),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_fourier_transform(name):
    """5 N log2 N for N complex points, and half of it for as many real ones."""
    model, x, forward, backward = TRANSFORMS[name]
    assert flops(model, x) == forward
    assert flops(model, x, phase="training") == forward + backward


def test_frequencies_and_outputs_to_write_to():
    """A range of frequencies is no transform; `out=` is one like any other."""
    assert flops(lambda x: x * FFT.fftfreq(16) + FFT.rfftfreq(30)[0], torch.randn(16)) == 0
    into = torch.empty(3, 16, dtype=torch.cfloat)
    assert flops(lambda x: FFT.fft(x, out=into.clone()), spectrum(3, 16)) == 5 * 48 * 4


def triangular(a, b):
    return la.solve_triangular(a, b, upper=True)


# What is called, with what, its FLOPs, and those of its backward.
SQUARES = {
    "cholesky": (la.cholesky, (EYE,), CUBE // 3, 2 * CUBE + 2 * CUBE),  # a product, two solves
    "inverse": (la.inv, (EYE,), 2 * CUBE, 2 * 2 * CUBE),  # two products
    "determinant": (la.det, (EYE,), LU, 2 * CUBE),  # a solve of n sides by the factors
    "determinants": (la.det, (EYE.expand(3, N, N),), 3 * LU, 3 * 2 * CUBE),
    "log-determinant": (torch.logdet, (EYE,), LU, 2 * CUBE),
    "slogdet": (la.slogdet, (EYE,), LU, 2 * CUBE),
    # One more solve by the factors, and the product of its result and the solution.
    "solve": (la.solve, (EYE, SIDES), LU + 2 * N * N * R, 4 * N * N * R),
    "solve for a vector": (la.solve, (EYE, torch.randn(N)), LU + 2 * N * N, 4 * N * N),
    "triangular solve": (triangular, (EYE, SIDES), N * N * R, N * N * R + 2 * N * N * R),
    # Two products, two solves, and the rows put back by the product with a permutation.
    "lu_factor": (la.lu_factor, (EYE,), LU, 2 * 2 * CUBE + 2 * CUBE + 2 * CUBE),
    "lu": (la.lu, (EYE,), LU, 2 * 2 * CUBE + 2 * CUBE + 2 * CUBE),
    # The inner square, and a product with the vectors on either side.
    "eigh": (la.eigh, (3 * EYE,), 9 * CUBE, 3 * 2 * CUBE),
    "tensorinv": (lambda a: la.tensorinv(a, ind=1), (EYE,), 2 * CUBE, 2 * 2 * CUBE),
    "tensorsolve": (la.tensorsolve, (EYE, torch.randn(N)), LU + 2 * N * N, 4 * N * N),
    # R by its gradient; Q by its own, back and forth; and a triangular solve.
    "qr": (
        la.qr,
        (TALL,),
        (2 * M * K**2 - 2 * K**3 // 3) + (4 * M * K * K - 2 * (M + K) * K**2 + 4 * K**3 // 3),
        2 * K**3 + 2 * 2 * M * K * K + M * K * K,
    ),
    # Five products with the vectors of the long side, one with those of the short one.
    "svd": (
        lambda a: la.svd(a, full_matrices=False),
        (TALL,),
        14 * M * K**2 + 8 * K**3,
        5 * 2 * M * K * K + 2 * K**3,
    ),
}
# Those that are not differentiable, or whose derivative torch makes out of many steps.
FORWARDS = {
    "ldl_factor": (la.ldl_factor, (EYE,), CUBE // 3),
    "ldl_solve": (lambda b: la.ldl_solve(*la.ldl_factor(EYE), b), (SIDES,), 72 + 2 * N * N * R),
    "lu_solve": (lambda b: la.lu_solve(*la.lu_factor(EYE), b), (SIDES,), LU + 2 * N * N * R),
    "lu_unpack": (lambda a: torch.lu_unpack(*la.lu_factor(a)), (EYE,), LU),
    "cholesky_solve": (torch.cholesky_solve, (SIDES, EYE), 2 * N * N * R),
    "cholesky_inverse": (torch.cholesky_inverse, (EYE,), 2 * CUBE // 3),
    "triangular_solve": (torch.triangular_solve, (SIDES, EYE), N * N * R),
    "geqrf": (torch.geqrf, (TALL,), 2 * M * K**2 - 2 * K**3 // 3),
    "qr without Q": (lambda a: la.qr(a, mode="r"), (TALL,), 2 * M * K**2 - 2 * K**3 // 3),
    "all of Q": (
        lambda a: la.qr(a, mode="complete"),
        (TALL,),
        144 + 4 * M * M * K - 2 * (M + M) * K**2 + 4 * K**3 // 3,
    ),
    "householder_product": (
        la.householder_product,
        (TALL, torch.randn(K)),
        4 * M * K * K - 2 * (M + K) * K**2 + 4 * K**3 // 3,
    ),
    "ormqr": (
        torch.ormqr,
        (TALL, torch.randn(K), torch.randn(M, 2)),
        4 * M * 2 * K - 2 * 2 * K**2,
    ),
    "svd with all vectors": (la.svd, (TALL,), 4 * M**2 * K + 8 * M * K**2 + 9 * K**3),
    "eig": (la.eig, (EYE,), 79 * CUBE // 3),
    "eig of complex numbers": (la.eig, (EYE.cfloat(),), 4 * 79 * CUBE // 3),
    "pinv": (la.pinv, (TALL,), 14 * M * K**2 + 8 * K**3 + 2 * M * K * K),
    "pinv, symmetric": (lambda a: la.pinv(a, hermitian=True), (EYE,), 9 * CUBE + 2 * CUBE),
    "lstsq": (
        lambda a, b: la.lstsq(a, b, driver="gels"),
        (TALL, torch.randn(M, 2)),
        (2 * M * K**2 - 2 * K**3 // 3) + (4 * M * 2 * K - 2 * 2 * K**2) + K * K * 2,
    ),
    # Whoever watches makes torch find the vectors too.
    "svdvals": (la.svdvals, (TALL,), 14 * M * K**2 + 8 * K**3),
    "eigvalsh": (la.eigvalsh, (EYE,), 9 * CUBE),
    "eigvals": (la.eigvals, (EYE,), 79 * CUBE // 3),
    "nuclear norm": (lambda a: la.norm(a, "nuc"), (EYE,), 22 * CUBE),
    "condition": (la.cond, (EYE,), 22 * CUBE),
    "rank": (la.matrix_rank, (EYE,), 22 * CUBE),
    "diagonal": (la.diagonal, (EYE,), 0),
    "solve, into": (lambda b: la.solve(EYE, b, out=torch.empty(N, R)), (SIDES,), 144 + 288),
    "pinv, into": (
        lambda a: la.pinv(a, out=torch.empty(K, M)),
        (TALL,),
        14 * M * K**2 + 8 * K**3 + 2 * M * K * K,
    ),
    "eigvals, into": (
        lambda a: la.eigvals(a, out=torch.empty(N, dtype=torch.cfloat)),
        (EYE,),
        10 * CUBE,
    ),
    "inverse, into": (lambda a: la.inv(a, out=torch.empty(N, N)), (EYE,), 2 * CUBE),
}


@pytest.mark.parametrize("name", [*SQUARES, *FORWARDS])
def test_linear_algebra_has_the_count_of_the_textbooks(name):
    """The terms of the highest order, by size."""
    model, inputs, forward, *_ = (SQUARES | FORWARDS)[name]
    assert flops(model, *inputs) == forward


@pytest.mark.parametrize("name", SQUARES)
def test_linear_algebra_has_a_backward_of_products_and_solves(name):
    """Each by its own count."""
    model, inputs, forward, backward = SQUARES[name]
    assert flops(model, *inputs, phase="training") == forward + backward


DIAGONAL = EYE.to_sparse_csr()  # six stored values
BATCH = EYE.expand(2, N, N).to_sparse()
SPARSE = {
    # What is called with dense operands alone, these, its FLOPs, those of its backward.
    "csr by columns": (lambda b: DIAGONAL @ b, (SIDES,), 2 * N * R, 2 * N * R),
    "coo by columns": (lambda b: EYE.to_sparse() @ b, (SIDES,), 2 * N * R, 2 * N * R),
    "by a vector": (lambda b: DIAGONAL @ b, (torch.randn(N),), 2 * N, 2 * N),
    "in a batch": (lambda b: torch.bmm(BATCH, b), (torch.randn(2, N, R),), 4 * N * R, 4 * N * R),
    "in a linear layer": (
        lambda x: torch.nn.functional.linear(x, DIAGONAL),
        (torch.randn(R, N),),
        2 * N * R,
        2 * N * R,
    ),
    "with a bias": (
        lambda c, b: torch.sparse.addmm(c, EYE.to_sparse(), b),
        (SIDES, SIDES),
        2 * N * R,
        2 * N * R,
    ),
    # Its gradients are those of two sparse factors.
    "sampled": (
        lambda a, b: torch.sparse.sampled_addmm(DIAGONAL, a, b).values(),
        (torch.randn(N, K), torch.randn(K, N)),
        2 * N * K,
        2 * 2 * N * K,
    ),
    "mean": (
        lambda b: torch.sparse.mm(DIAGONAL, b, "mean"),
        (SIDES,),
        2 * N * R,
        2 * N * R,
    ),
}


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_product(name):
    """Two FLOP for each stored value and each column, in the backward too."""
    model, inputs, forward, backward = SPARSE[name]
    assert flops(model, *inputs) == forward
    assert flops(model, *inputs, phase="training") == forward + backward


@pytest.mark.parametrize("function", [torch.hspmm, torch.smm], ids=["hspmm", "smm"])
def test_products_that_come_out_sparse(function):
    """As many products."""
    assert flops(lambda b: function(EYE.to_sparse(), b), SIDES) == 2 * N * R
    added = flops(lambda b: torch.sspaddmm(SIDES.to_sparse(), EYE.to_sparse(), b), SIDES)
    assert added == 2 * N * R


def test_an_embedding_with_sparse_gradients_is_free():
    """Rows are read, and written back."""
    table = torch.nn.Embedding(10, 4, sparse=True)
    found = pytest_nnscale.profile(
        table, (torch.tensor([1, 2]),), phase="training", optimizer=torch.optim.SparseAdam
    )
    assert (found.flops, found.uncounted) == (0, ())
