"""Dense linear algebra: the highest-order terms of the textbooks, in FLOP, for each matrix.

Sources: "LAWN 41": E. Anderson, J. Dongarra, S. Ostrouchov, "Installation Guide for LAPACK",
appendix on operation counts; "GVL": G. H. Golub, C. F. Van Loan, "Matrix Computations", 4th ed.;
"LUG": LAPACK Users' Guide, 3rd ed., "LAPACK Benchmark". Fractions are rounded up. Complex ones cost
four times as much, as all but a lower term of them is multiply-adds.
Eigenvalues and singular values come out of iterations whose number depends on the numbers: what is
stated is the count that the books give for them, whatever algorithm a driver takes. torch finds
the vectors as well wherever it may need a derivative, and so for whoever watches: `svdvals`,
`eigvalsh` and `eigvals` dispatch, and cost here, what they do with vectors.
No formula: the matrix exponential and square root, and the polar decomposition (the degree depends
on the norm), and least squares by singular values (no count is agreed).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import ceil, prod
from typing import Any

from pytest_nnscale.counting.formulas.registry import NoFormula, Shape, named, ours


def _each(matrices: Shape, one: Fraction | int) -> int:
    return prod(matrices[:-2]) * ceil(one)


def _third(number: int) -> Fraction:
    return Fraction(number, 3)


def _lu(m: int, n: int) -> Fraction:
    """LAWN 41, xGETRF: 2 n^3 / 3 of a square one."""
    long, short = max(m, n), min(m, n)
    return long * short**2 - _third(short**3)


def _qr(m: int, n: int) -> Fraction:
    """GVL 5.2.2; LAWN 41, xGEQRF: 2 m n^2 - 2 n^3 / 3 of a tall one."""
    long, short = max(m, n), min(m, n)
    return 2 * long * short**2 - _third(2 * short**3)


def _reflectors(m: int, n: int, k: int) -> Fraction:
    """LAWN 41, xORGQR: the first n columns of a product of k reflectors of length m."""
    return 4 * m * n * k - 2 * (m + n) * k**2 + _third(4 * k**3)


def _singular(m: int, n: int, *, vectors: bool, full: bool) -> Fraction:
    """GVL 8.6.4, Golub and Reinsch: values alone; with as many vectors as values; with all."""
    m, n = max(m, n), min(m, n)
    if not vectors:
        return 4 * m * n**2 - _third(4 * n**3)
    if full and m > n:
        return Fraction(4 * m**2 * n + 8 * m * n**2 + 9 * n**3)
    return Fraction(14 * m * n**2 + 8 * n**3)


def _symmetric(n: int, *, vectors: bool) -> Fraction:
    """GVL 8.3: by tridiagonalisation and the symmetric QR algorithm."""
    return Fraction(9 * n**3) if vectors else _third(4 * n**3)


def _square(one: Callable[[int], Fraction | int]) -> Callable[..., int]:
    def formula(matrices: Shape, *_args: Any, **_: Any) -> int:
        return _each(matrices, one(matrices[-1]))

    return formula


# GVL 4.2.5; LAWN 41, xPOTRF. Symmetric indefinite: GVL 4.4, xSYTRF.
ours(*named("aten", "linalg_cholesky_ex cholesky linalg_ldl_factor_ex"))(
    _square(lambda n: _third(n**3))
)
# LAWN 41, xPOTRI.
ours("aten::cholesky_inverse")(_square(lambda n: _third(2 * n**3)))
# The diagonal's product is no term of the highest order.
ours("aten::_linalg_det", "aten::_linalg_slogdet")(_square(lambda n: _lu(n, n)))
# LAWN 41, xGETRF and xGETRI: 2 n^3 / 3 and 4 n^3 / 3.
ours("aten::linalg_inv_ex")(_square(lambda n: 2 * n**3))
# LUG: xGEEV, 10 n^3 for values alone (GVL 7.5.6 too), 26.33 n^3 with right vectors.
ours("aten::_linalg_eigvals", "aten::linalg_eigvals.out")(_square(lambda n: 10 * n**3))
ours("aten::linalg_eig")(_square(lambda n: _third(79 * n**3)))


@ours("aten::linalg_lu", "aten::linalg_lu_factor_ex")
def _lu_factor(matrices: Shape, *_args: Any, **_: Any) -> int:
    return _each(matrices, _lu(*matrices[-2:]))


@ours("aten::_linalg_solve_ex")
def _solve(matrices: Shape, right: Shape, *, left: bool = True, **_: Any) -> int:
    """LAWN 41, xGETRF and xGETRS: one factorisation, two triangular solves for each side."""
    n = matrices[-1]
    one = len(right) == 1 or (len(matrices) == len(right) + 1 and matrices[:-1] == right)
    sides = 1 if one else right[-1] if left else right[-2]
    return _each(matrices, _lu(n, n) + 2 * n**2 * sides)


def _substitutions(times: int) -> Callable[..., int]:
    """GVL 3.1: n^2 for each triangular solve and side; every number solved for meets n others."""

    def formula(matrices: Shape, out: Any) -> int:
        solved: Shape = out if not out or isinstance(out[0], int) else out[0]
        return times * prod(solved) * matrices[-1]

    return formula


@ours("aten::linalg_solve_triangular")
def _triangular(matrices: Shape, _right: Shape, *_args: Any, out_shape: Any, **_: Any) -> int:
    return _substitutions(1)(matrices, out_shape)


@ours("aten::triangular_solve")
def _triangular_old(_right: Shape, matrices: Shape, *_args: Any, out_shape: Any, **_: Any) -> int:
    return _substitutions(1)(matrices, out_shape)


@ours("aten::cholesky_solve", "aten::_cholesky_solve_helper")
def _by_cholesky(_right: Shape, matrices: Shape, *_args: Any, out_shape: Any, **_: Any) -> int:
    return _substitutions(2)(matrices, out_shape)


@ours("aten::linalg_lu_solve", "aten::linalg_ldl_solve")
def _by_lu(matrices: Shape, _pivots: Shape, *_args: Any, out_shape: Any, **_: Any) -> int:
    return _substitutions(2)(matrices, out_shape)


@ours("aten::geqrf")
def _geqrf(matrices: Shape, *_args: Any, **_: Any) -> int:
    return _each(matrices, _qr(*matrices[-2:]))


@ours("aten::linalg_qr")
def _linalg_qr(matrices: Shape, mode: str = "reduced", *_args: Any, **_: Any) -> int:
    """The factorisation, and unless mode is "r" the columns of Q."""
    m, n = matrices[-2:]
    columns = {"reduced": min(m, n), "complete": m}.get(mode)
    forming = _reflectors(m, columns, min(m, n)) if columns is not None else 0
    return _each(matrices, _qr(m, n) + forming)


@ours("aten::linalg_householder_product")
def _householder(matrices: Shape, scales: Shape, **_: Any) -> int:
    m, n = matrices[-2:]
    return _each(matrices, _reflectors(m, n, scales[-1]))


def _applied(rows: int, columns: int, k: int, length: int) -> int:
    """LAWN 41, xORMQR: k reflectors of that length on a matrix."""
    return 4 * rows * columns * k - 2 * (rows * columns // length) * k**2


@ours("aten::ormqr")
def _ormqr(
    _vectors: Shape, scales: Shape, other: Shape, left: bool = True, *_args: Any, **_: Any
) -> int:
    m, n = other[-2:]
    return _each(other, _applied(m, n, scales[-1], m if left else n))


@ours("aten::linalg_lstsq")
def _least_squares(
    matrices: Shape,
    right: Shape,
    _rcond: object = None,
    *_args: Any,
    driver: str | None = None,
    **_: Any,
) -> int:
    """LAWN 41: xGEQRF (or xGELQF), xORMQR and one triangular solve, of full rank."""
    if driver not in (None, "gels", "gelsy"):
        raise NoFormula(f"least squares by {driver} have no agreed count")
    m, n = matrices[-2:]
    short = min(m, n)
    # torch takes a stack of vectors, one for each matrix, for one column each.
    sides = 1 if len(right) < len(matrices) else right[-1]
    applied = _applied(max(m, n), sides, short, max(m, n))
    return _each(matrices, _qr(m, n) + applied + short**2 * sides)


@ours("aten::_linalg_svd")
def _svd(matrices: Shape, full: bool = False, vectors: bool = True, *_args: Any, **_: Any) -> int:
    return _each(matrices, _singular(*matrices[-2:], vectors=vectors, full=full))


@ours("aten::_linalg_eigh")
def _eigh(matrices: Shape, _half: str = "L", vectors: bool = True, *_args: Any, **_: Any) -> int:
    return _each(matrices, _symmetric(matrices[-1], vectors=vectors))


@ours(*named("aten", "linalg_pinv.atol_rtol_tensor linalg_pinv.atol_rtol_tensor_out"))
def _pseudo_inverse(matrices: Shape, *_args: Any, hermitian: bool = False, **_: Any) -> int:
    """A decomposition, and the product of its factors."""
    m, n = matrices[-2:]
    if hermitian:
        return _each(matrices, _symmetric(n, vectors=True) + 2 * n**3)
    whole = _singular(m, n, vectors=True, full=False) + 2 * m * n * min(m, n)
    return _each(matrices, whole)
