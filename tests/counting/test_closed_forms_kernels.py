"""Kernels of other devices and libraries, by their schemas: nothing of them runs here.

Arguments are placed by the names that an operator's schema gives them, so that a formula which
looks at another one counts something else.
"""

import pytest
import torch

from pytest_nnscale.counting.formulas import NoFormula, formula_for

aten, mkl, mkldnn = torch.ops.aten, torch.ops.mkl, torch.ops.mkldnn
onednn, sparse = torch.ops.onednn, torch.ops.sparse


def of(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def counted(operator, out, given):
    """Call a formula as its operator is called; None stands for what it has not to look at."""
    overload = operator if isinstance(operator, torch._ops.OpOverload) else None
    if overload is None:
        overload = getattr(operator, operator.overloads()[0])
    arguments = overload._schema.arguments
    assert {*given} <= {argument.name for argument in arguments}
    args = [given.get(argument.name) for argument in arguments if not argument.kwarg_only]
    kwargs = {a.name: given.get(a.name) for a in arguments if a.kwarg_only}
    return formula_for(overload)(*args, **kwargs, out_val=out)


ROWS, IN, OUT = 6, 3, 4
X, Y, W = of(2, 3, IN), of(2, 3, OUT), of(OUT, IN)
LINEAR = 2 * ROWS * IN * OUT
PACKED = {
    aten: "_weight_int4pack_mm _weight_int4pack_mm_with_scales_and_zeros _dyn_quant_matmul_4bit "
    "_mixed_dtypes_linear",
    onednn: "qlinear_pointwise linear_dynamic_fp16 linear_relu_dynamic_fp16",
    sparse: "qlinear qlinear_relu qlinear_dynamic qlinear_relu_dynamic",
    torch.ops.quantized: "linear linear_relu linear_tanh linear_leaky_relu linear_dynamic "
    "linear_relu_dynamic linear_dynamic_fp16 linear_relu_dynamic_fp16 int4mm_packed_weight_cpu "
    "linear_dynamic_fp16_unpacked_weight linear_with_input_q_dq_qweight_dq_output_fp32 "
    "linear_with_input_q_dq_qweight_dq_relu_output_fp32",
    torch.ops._quantized: "linear linear_dynamic wrapped_quantized_linear "
    "_wrapped_quantized_linear_prepacked wrapped_fbgemm_linear_fp16_weight",
}
MASKS = [([True, True, True], 2), ([False, True, True], 1), ([True, False, False], 1)]

PRODUCTS = [
    (aten.mkldnn_linear, Y, {"self": X, "weight": W}, LINEAR),
    (aten.mkldnn_linear_backward_input, X, {"grad_output": Y, "weight": W}, LINEAR),
    (aten.mkldnn_linear_backward_weights, W, {"grad_output": Y, "input": X, "weight": W}, LINEAR),
    (mkl._mkl_linear, Y, {"X": X, "MKL_W": of(99), "ORI_W": W}, LINEAR),
    (mkldnn._linear_pointwise.default, Y, {"X": X, "W": of(1, OUT * IN)}, LINEAR),
    (mkldnn._linear_pointwise.binary, Y, {"X": X, "other": Y, "W": of(1, OUT * IN)}, LINEAR),
    (
        aten._foreach_mm,
        None,
        {"self": [of(2, 3), of(4, 5)], "mat2": [of(3, 4), of(5, 6)]},
        2 * 2 * 3 * 4 + 2 * 4 * 5 * 6,
    ),
    (
        aten._compute_linear_combination,
        of(5, 3, 3),
        {"input": of(7, 3, 3), "coefficients": of(5, 7)},
        2 * 5 * 7 * 9,
    ),
    (aten.cudnn_affine_grid_generator, of(2, 4, 5, 2), {"theta": of(2, 2, 3)}, 2 * 3 * 80),
    (
        aten.cudnn_affine_grid_generator_backward,
        of(2, 2, 3),
        {"grad": of(2, 4, 5, 2)},
        2 * 3 * 80,
    ),
    (aten._scaled_mm_v2, of(16, 8), {"self": of(16, 32), "mat2": of(32, 8)}, 2 * 16 * 32 * 8),
    (  # two numbers of four bits in each byte
        aten._scaled_mm_v2,
        of(16, 8),
        {
            "self": of(16, 16, dtype=torch.float4_e2m1fn_x2),
            "mat2": of(16, 8, dtype=torch.float4_e2m1fn_x2),
        },
        2 * 16 * 32 * 8,
    ),
    (
        aten._scaled_grouped_mm_v2,
        of(8, 32),
        {"self": of(8, 16), "mat2": of(2, 16, 32)},
        2 * 8 * 16 * 32,
    ),
    # Of 16 values in a row eight are stored.
    (
        aten._sparse_semi_structured_mm,
        of(4, 5),
        {"mat1": of(4, 8), "mat1_meta": of(4, 1), "mat2": of(16, 5)},
        2 * 4 * 8 * 5,
    ),
    (
        aten._sparse_semi_structured_addmm,
        of(4, 5),
        {"input": of(4), "mat1": of(4, 8), "mat1_meta": of(4, 1), "mat2": of(16, 5)},
        2 * 4 * 8 * 5,
    ),
    (
        aten._sparse_semi_structured_linear,
        of(5, 4),
        {"input": of(5, 16), "weight": of(4, 8), "meta": of(4, 1)},
        2 * 4 * 8 * 5,
    ),
    (
        aten._cslt_sparse_mm,
        of(4, 5),
        {"compressed_A": of(4, 9), "dense_B": of(16, 5)},
        2 * 4 * 8 * 5,
    ),
]


@pytest.mark.parametrize(("operator", "out", "given", "flops"), PRODUCTS, ids=lambda x: str(x)[:40])
def test_products(operator, out, given, flops):
    """However a weight is packed, the rows and the output tell what meets."""
    assert counted(operator, out, given) == flops


@pytest.mark.parametrize(
    "operator",
    [getattr(library, name) for library, names in PACKED.items() for name in names.split()],
    ids=str,
)
def test_products_with_packed_weights(operator):
    """The first argument has the rows, and the output as many columns as the weight."""
    overload = getattr(operator, operator.overloads()[0])
    assert counted(overload, Y, {overload._schema.arguments[0].name: X}) == LINEAR


@pytest.mark.parametrize(("mask", "gradients"), MASKS)
@pytest.mark.parametrize("operator", [aten.mkldnn_linear_backward, aten.linear_backward])
def test_backward_of_a_linear_layer(operator, mask, gradients):
    """One product for each of the two gradients that is asked for; the bias is a sum."""
    given = {"self": X, "grad_output": Y, "weight": W, "output_mask": mask}
    assert counted(operator, (X, W, of(OUT)), given) == gradients * LINEAR


IMAGE, KERNEL, RESULT = of(2, 4, 7, 7), of(8, 2, 3, 3), of(2, 8, 5, 5)
PLAIN = 2 * 2 * 8 * 25 * 2 * 9
TRANSPOSED_KERNEL, LARGER = of(4, 3, 3, 3), of(2, 6, 9, 9)  # in two groups
TRANSPOSED = 2 * 2 * 4 * 49 * 3 * 9
CONVOLUTIONS = (
    "cudnn_convolution cudnn_convolution_relu cudnn_convolution_add_relu miopen_convolution "
    "miopen_convolution_relu miopen_convolution_add_relu miopen_depthwise_convolution "
    "_mps_convolution mkldnn_convolution slow_conv_dilated2d _conv_depthwise2d"
)


@pytest.mark.parametrize("name", CONVOLUTIONS.split())
def test_convolutions(name):
    """Output numbers by the kernel of their channel, in groups; flags are not taken for others."""
    given = {"self": IMAGE, "weight": KERNEL, "benchmark": True, "z": RESULT}
    names = {a.name for a in getattr(aten, name).default._schema.arguments}
    given = {key: value for key, value in given.items() if key in names}
    assert counted(getattr(aten, name), RESULT, given) == PLAIN


def test_convolutions_of_other_sizes():
    """In three dimensions, and by whatever names their arguments go."""
    volume, kernel, result = of(2, 4, 7, 7, 7), of(8, 4, 3, 3, 3), of(2, 8, 5, 5, 5)
    expected = 2 * 2 * 8 * 125 * 4 * 27
    for name in ("slow_conv3d_forward", "slow_conv_dilated3d"):
        given = {"self": volume, "weight": kernel}
        assert counted(getattr(aten, name).default, result, given) == expected
    given = {"self": volume, "weight": of(4, 1, 3, 3, 3)}
    assert counted(aten.conv_depthwise3d, of(2, 4, 5, 5, 5), given) == expected // 8
    given = {"self": volume, "weight": of(4, 3, 3, 3, 3)}
    larger = of(2, 3, 9, 9, 9)
    assert counted(aten.slow_conv_transpose3d, larger, given) == 2 * 2 * 4 * 343 * 3 * 27
    given = {"self": IMAGE, "weight": of(8, 4, 3, 3)}
    assert counted(aten._slow_conv2d_forward.default, RESULT, given) == 2 * PLAIN
    given = {"input": IMAGE, "weight": KERNEL}
    assert counted(aten._nnpack_spatial_convolution, RESULT, given) == PLAIN
    for operator in (aten._convolution.default, aten.convolution_overrideable):
        assert counted(operator, RESULT, {**given, "transposed": False}) == PLAIN
        given_up = {"input": IMAGE, "weight": TRANSPOSED_KERNEL, "transposed": True}
        assert counted(operator, LARGER, given_up) == TRANSPOSED


@pytest.mark.parametrize("kernel", [KERNEL, of(2, 4, 2, 3, 3)], ids=["plain", "groups apart"])
def test_reordered_convolutions(kernel):
    """oneDNN gives groups an axis of their own."""
    given = {"X": IMAGE, "W": kernel}
    assert counted(mkldnn._convolution_pointwise.default, RESULT, given) == PLAIN
    given["other"] = RESULT
    assert counted(mkldnn._convolution_pointwise.binary, RESULT, given) == PLAIN
    assert counted(mkldnn._convolution_pointwise_.binary, RESULT, given) == PLAIN
    given = {"qx": IMAGE, "qw": kernel}
    for operator in (onednn.qconv_pointwise.default, onednn.qconv2d_pointwise.default):
        assert counted(operator, RESULT, given) == PLAIN


@pytest.mark.parametrize(
    "name",
    [
        "cudnn_convolution_transpose",
        "miopen_convolution_transpose",
        "_mps_convolution_transpose",
        "slow_conv_transpose2d",
    ],
)
def test_transposed_convolutions(name):
    """Input numbers by all kernels of their channel."""
    given = {"self": IMAGE, "weight": TRANSPOSED_KERNEL}
    assert counted(getattr(aten, name), LARGER, given) == TRANSPOSED
    given = {"X": IMAGE, "W": TRANSPOSED_KERNEL}
    assert counted(mkldnn._convolution_transpose_pointwise, LARGER, given) == TRANSPOSED


@pytest.mark.parametrize(("mask", "gradients"), MASKS)
def test_backwards_of_convolutions(mask, gradients):
    """Once for each gradient, plain and transposed, whatever the order of arguments is."""
    given = {"grad_output": RESULT, "weight": KERNEL, "output_mask": mask}
    mps, slow = aten.mps_convolution_backward, aten._slow_conv2d_backward.output_mask
    assert counted(mps, None, {"self": IMAGE, **given}) == gradients * PLAIN
    assert counted(slow, None, {"self": IMAGE, **given}) == gradients * PLAIN
    other, given = aten.convolution_backward_overrideable, {"input": IMAGE, **given}
    assert counted(other, None, {**given, "transposed": False}) == gradients * PLAIN
    given.update(grad_output=LARGER, weight=TRANSPOSED_KERNEL, transposed=True)
    assert counted(other, None, given) == gradients * TRANSPOSED
    given = {"self": IMAGE, "grad_output": LARGER, "weight": TRANSPOSED_KERNEL}
    mps = aten.mps_convolution_transpose_backward
    assert counted(mps, None, {**given, "output_mask": mask[:2]}) == gradients * TRANSPOSED


HEADS = {"query": of(2, 4, 5, 8), "key": of(2, 4, 7, 8), "value": of(2, 4, 7, 6)}
ONE = 2 * 2 * 4 * 5 * 7
STEPS = {name: x.transpose(1, 2) for name, x in HEADS.items()}
FORWARD, BACKWARD = ONE * (8 + 6), ONE * (3 * 8 + 2 * 6)


def test_attention_of_one_batch():
    """Some kernels have heads before steps, others steps before heads."""
    for name in (
        "_scaled_dot_product_attention_math_for_mps",
        "_scaled_dot_product_fused_attention_overrideable",
        "_cudnn_attention_forward",
    ):
        assert counted(getattr(aten, name), None, HEADS) == FORWARD
    by_letters = {name[0]: x for name, x in HEADS.items()}
    assert counted(aten._triton_scaled_dot_attention, None, by_letters) == FORWARD
    for name in ("_efficient_attention_forward", "_flash_attention_forward_no_dropout_inplace"):
        assert counted(getattr(aten, name), None, STEPS) == FORWARD
    for name in ("_cudnn_attention", "_scaled_dot_product_fused_attention_overrideable"):
        assert counted(getattr(aten, f"{name}_backward"), None, HEADS) == BACKWARD
    for name in ("_efficient_attention_backward", "_flash_attention_backward"):
        assert counted(getattr(aten, name), None, STEPS) == BACKWARD


@pytest.mark.parametrize("kind", ["efficient", "flash", "cudnn"])
def test_attention_of_sequences(kind):
    """Each meets its own keys alone; where nobody knows how long they are, nothing is counted."""
    long = {"query": of(7, 4, 8), "key": of(9, 4, 8), "value": of(9, 4, 6)}
    names = ("cu_seqlens_q", "cu_seqlens_k") if kind == "efficient" else ("cum_seq_q", "cum_seq_k")
    ends = dict(zip(names, (torch.tensor([0, 3, 7]), torch.tensor([0, 4, 9])), strict=True))
    one = 2 * 4 * (3 * 4 + 4 * 5)
    forward = getattr(aten, f"_{kind}_attention_forward")
    backward = getattr(aten, f"_{kind}_attention_backward")
    assert counted(forward, None, {**long, **ends}) == one * (8 + 6)
    assert counted(backward, None, {**long, **ends}) == one * (3 * 8 + 2 * 6)
    used = {"seqlen_k" if kind == "efficient" else "seqused_k": torch.tensor([2, 1])}
    assert counted(forward, None, {**long, **ends, **used}) == 2 * 4 * (3 * 2 + 4 * 1) * (8 + 6)
    for unknown in (
        {**ends, names[1]: None},
        {name: end.to("meta") for name, end in ends.items()},
    ):
        with pytest.raises(NoFormula, match="lengths of its sequences"):
            counted(forward, None, {**long, **unknown})


def test_decompositions_without_vectors():
    """What torch calls where nobody watches and nothing needs a gradient."""
    assert counted(aten._linalg_eigvals, None, {"self": of(6, 6)}) == 10 * 216
    solve = {"self": of(6, 4), "A": of(6, 6)}
    assert counted(aten._cholesky_solve_helper, of(6, 4), solve) == 2 * 36 * 4
    values = {"A": of(9, 3), "full_matrices": False, "compute_uv": False}
    assert counted(aten._linalg_svd, None, values) == 4 * 9 * 9 - 4 * 27 // 3
    values = {"A": of(6, 6), "UPLO": "L", "compute_v": False}
    assert counted(aten._linalg_eigh, None, values) == 4 * 216 // 3


def test_multi_head_attention_of_one_kernel():
    """Three projections in, attention, one out."""
    x = of(2, 5, 8)
    given = {"query": x, "key": x, "value": x, "embed_dim": 8, "num_head": 2}
    expected = 2 * 2 * 5 * 4 * 64 + 2 * 2 * 2 * 25 * 8
    assert counted(aten._triton_multi_head_attention, x, given) == expected
    assert counted(aten._native_multi_head_attention, x, given) == expected


@pytest.mark.parametrize("asked", [True, False])
def test_recurrent_layers_of_gpus(asked):
    """All layers are one operator, which gets every weight; flat ones are biases."""
    weights = [of(16, 3), of(16, 4), of(16), of(16)]
    forward = 2 * 5 * 2 * 16 * (3 + 4)
    given = {"input": of(5, 2, 3), "weight": weights}
    assert counted(aten.miopen_rnn, None, given) == forward
    given["output_mask"] = [True, False, False, asked]
    assert counted(aten.miopen_rnn_backward, None, given) == forward * (1 + asked)
    given = {"input": of(5, 2, 3), "hx": [of(1, 2, 4)], "params": weights}
    assert counted(aten._lstm_mps, None, given) == forward
