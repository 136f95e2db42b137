"""Operator -> FLOPs, on top of torch's own flop_registry; 1 multiply-accumulate = 2 FLOP.

Counts: contractions (matrix products, convolutions, attention). Not: bias, elementwise work.
Causal or masked attention counts as dense attention, as in torch. Formulas are of real, dense
tensors; `flops.py` makes the most of them for complex, sparse and nested ones. Fourier transforms
and dense linear algebra count the operations of the textbooks named there, rounded up.
Reference: torch.utils.flop_counter. Departs from it where it is wrong: the weight gradient of a
grouped convolution (counted `groups` times), cudnn_convolution (its `benchmark` flag taken for
`transposed`), _slow_conv2d_forward (raises), and _efficient_attention_* of dense tensors (sequence
and heads exchanged).
"""

# Importing a family registers its formulas.
from pytest_nnscale.counting.formulas import attention as attention
from pytest_nnscale.counting.formulas import contractions as contractions
from pytest_nnscale.counting.formulas import convolutions as convolutions
from pytest_nnscale.counting.formulas import fourier as fourier
from pytest_nnscale.counting.formulas import linalg as linalg
from pytest_nnscale.counting.formulas import quantized as quantized
from pytest_nnscale.counting.formulas import recurrent as recurrent
from pytest_nnscale.counting.formulas import sparse as sparse
from pytest_nnscale.counting.formulas.registry import NoFormula as NoFormula
from pytest_nnscale.counting.formulas.registry import counts_any_number as counts_any_number
from pytest_nnscale.counting.formulas.registry import flop_formula as flop_formula
from pytest_nnscale.counting.formulas.registry import formula_for as formula_for
from pytest_nnscale.counting.formulas.registry import is_of_user as is_of_user
from pytest_nnscale.counting.formulas.registry import sees_shapes_alone as sees_shapes_alone
