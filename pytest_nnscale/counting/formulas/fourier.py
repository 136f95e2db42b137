"""Fourier transforms: 5 N log2 N real operations for N complex points, half of it for real ones.

The convention of Cooley and Tukey's radix-2 algorithm, which benchFFT uses for every length and
algorithm (M. Frigo, S. G. Johnson, "The Design and Implementation of FFTW3", Proc. IEEE 93, 2005).
N is the product of the transformed sizes, of the real side where there is one. Rounded up.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log2, prod
from typing import Any

from pytest_nnscale.counting.formulas.registry import Shape, ours


def _transform(points: Shape, axes: Sequence[int], *, real: bool) -> int:
    length = prod(points[axis] for axis in axes)
    if length == 0:
        return 0
    return ceil((2.5 if real else 5) * prod(points) * log2(length))


@ours("aten::_fft_c2c", any_number=True)
def _complex(points: Shape, axes: Sequence[int], *_args: Any, **_: Any) -> int:
    return _transform(points, axes, real=False)


@ours("aten::_fft_r2c", any_number=True)
def _from_real(points: Shape, axes: Sequence[int], *_args: Any, **_: Any) -> int:
    return _transform(points, axes, real=True)


@ours("aten::_fft_c2r", any_number=True)
def _to_real(_points: Shape, axes: Sequence[int], *_args: Any, out_shape: Shape, **_: Any) -> int:
    return _transform(out_shape, axes, real=True)


@ours("aten::fft_fftfreq", "aten::fft_rfftfreq")
def _frequencies(*_args: Any, **_: Any) -> int:
    return 0  # a range, named like a transform
