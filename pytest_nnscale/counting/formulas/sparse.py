"""Products with 2:4 sparse weights, whose zeros follow from their shape; two values of four count.

Other sparse layouts have their values counted in `flops.py`.
"""

from __future__ import annotations

from math import prod
from typing import Any

from pytest_nnscale.counting.formulas.registry import Shape, named, ours


@ours(*named("aten", "_sparse_semi_structured_mm"))
def _mm(values: Shape, _meta: Shape, dense: Shape, **_: Any) -> int:
    return 2 * prod(values) * dense[-1]


@ours(*named("aten", "_sparse_semi_structured_addmm"))
def _addmm(_bias: Shape, values: Shape, _meta: Shape, dense: Shape, **_: Any) -> int:
    return 2 * prod(values) * dense[-1]


@ours(*named("aten", "_sparse_semi_structured_linear"))
def _linear(rows: Shape, values: Shape, *_args: Any, **_: Any) -> int:
    return 2 * prod(rows[:-1]) * prod(values)


@ours(*named("aten", "_cslt_sparse_mm"))
def _cusparselt(_compressed: Shape, dense: Shape, *_args: Any, out_shape: Shape, **_: Any) -> int:
    # Values and their places lie in one buffer; half of the inner dimension is there.
    return prod(out_shape) * dense[0]
