"""Products with packed or quantised weights: as many as with plain ones, in whatever width.

The output tells how many columns a packed weight has; a packed convolution is unpacked for its
kernel's shape. Packing, unpacking and scaling are free.
"""

from __future__ import annotations

from math import prod
from typing import Any

from pytest_nnscale.counting.formulas.registry import Shape, named, ours


@ours(
    *named(
        "aten",
        "_weight_int4pack_mm _weight_int4pack_mm_for_cpu _weight_int4pack_mm_with_scales_and_zeros "
        "_weight_int8pack_mm _dyn_quant_matmul_4bit _mixed_dtypes_linear",
    ),
    *named(
        "quantized",
        "linear linear_relu linear_tanh linear_leaky_relu linear_dynamic linear_relu_dynamic "
        "linear_dynamic_fp16 linear_relu_dynamic_fp16 linear_dynamic_fp16_unpacked_weight "
        "linear_with_input_q_dq_qweight_dq_output_fp32 "
        "linear_with_input_q_dq_qweight_dq_relu_output_fp32 int4mm_packed_weight_cpu",
    ),
    *named(
        "_quantized",
        "linear linear_dynamic wrapped_quantized_linear _wrapped_quantized_linear_prepacked "
        "wrapped_fbgemm_linear_fp16_weight",
    ),
    *named("onednn", "qlinear_pointwise linear_dynamic_fp16 linear_relu_dynamic_fp16"),
    *named("sparse", "qlinear qlinear_relu qlinear_dynamic qlinear_relu_dynamic"),
)
def _linear(rows: Shape, *_args: Any, out_shape: Shape, **_: Any) -> int:
    return 2 * prod(rows) * out_shape[-1]


@ours(*named("quantized", "matmul"))
def _product(left: Shape, right: Shape, *_args: Any, **_: Any) -> int:
    return 2 * prod(left) * right[-1]


def _kernel(packed: Any) -> Shape:
    shape: Shape = packed.unpack()[0].shape
    return shape


@ours(
    *named(
        "quantized",
        "conv1d conv1d_relu conv1d_dynamic conv2d conv2d_relu conv2d_dynamic conv3d conv3d_relu "
        "conv3d_dynamic",
    ),
    *named("_quantized", "conv2d conv2d_relu conv3d conv3d_relu"),
)
def _convolution(_image: Shape, packed: Any, *_args: Any, out_shape: Shape, **_: Any) -> int:
    return 2 * prod(out_shape) * prod(_kernel(packed)[1:])


@ours(*named("quantized", "conv2d_add conv2d_add_relu"))
def _convolution_and_sum(
    _image: Shape, _other: Shape, packed: Any, *_args: Any, out_shape: Shape, **_: Any
) -> int:
    return 2 * prod(out_shape) * prod(_kernel(packed)[1:])


@ours(
    *named(
        "quantized",
        "conv_transpose1d conv_transpose1d_dynamic conv_transpose2d conv_transpose2d_dynamic "
        "conv_transpose3d conv_transpose3d_dynamic",
    ),
    *named("_quantized", "conv_transpose1d conv_transpose2d conv_transpose3d"),
)
def _transposed(image: Shape, packed: Any, *_args: Any, **_: Any) -> int:
    return 2 * prod(image) * prod(_kernel(packed)[1:])


@ours(*named("onednn", "qconv_pointwise qconv1d_pointwise qconv2d_pointwise qconv3d_pointwise"))
def _onednn_convolution(
    _image: Shape, _scale: Any, _zero: Any, kernel: Shape, *_args: Any, out_shape: Shape, **_: Any
) -> int:
    # A reordered kernel has its groups as an axis of their own.
    return 2 * prod(out_shape) * (prod(kernel) // out_shape[1])
