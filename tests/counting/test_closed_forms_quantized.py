"""Products of few bits, of experts, and with packed weights: as many as plain ones."""

import functools

import pytest
import torch
import torch.ao.nn.intrinsic.quantized as fused
import torch.ao.nn.quantized as static
import torch.ao.nn.quantized.dynamic as dynamic
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's name

import pytest_nnscale
from pytest_nnscale.counting.formulas import formula_for

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.ao and packed weights are deprecated

IN, OUT, SIZE = 4, 8, 3
LINEAR = 2 * 3 * IN * OUT


def flops(model, *inputs, phase="inference"):
    found = pytest_nnscale.profile(model, inputs, phase=phase, metrics=("flops",))
    assert found.uncounted == (), found.uncounted
    return found.flops


def eight_bits(*shape):
    return torch.quantize_per_tensor(torch.randn(shape), 0.1, 0, torch.quint8)


@pytest.mark.parametrize(
    ("layer", "make"),
    [
        (static.Linear, eight_bits),
        (fused.LinearReLU, eight_bits),
        (dynamic.Linear, torch.randn),
        (functools.partial(dynamic.Linear, dtype=torch.float16), torch.randn),
    ],
    ids=["static", "with ReLU", "dynamic", "dynamic, half"],
)
def test_linear(layer, make):
    """A packed weight meets each row."""
    assert flops(layer(IN, OUT), make(3, IN)) == LINEAR


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("family", [static, dynamic], ids=["static", "dynamic"])
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"dilation": 2}, {"groups": 2}], ids=str)
def test_convolution(axes, family, options):
    """A packed kernel tells its shape."""
    model = getattr(family, f"Conv{axes}d")(IN, OUT, SIZE, **options)
    x = (eight_bits if family is static else torch.randn)(2, IN, *[7] * axes)
    side = (7 - options.get("dilation", 1) * (SIZE - 1) - 1) // options.get("stride", 1) + 1
    kernel = IN // options.get("groups", 1) * SIZE**axes
    assert flops(model, x) == 2 * 2 * OUT * side**axes * kernel


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("family", [static, dynamic], ids=["static", "dynamic"])
def test_transposed_convolution(axes, family):
    """Each input number meets all kernels of its channel."""
    model = getattr(family, f"ConvTranspose{axes}d")(IN, OUT, SIZE, stride=2)
    x = (eight_bits if family is static else torch.randn)(2, IN, *[5] * axes)
    assert flops(model, x) == 2 * 2 * IN * 5**axes * OUT * SIZE**axes


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolution_with_relu(axes):
    """What is fused to it is elementwise."""
    model = getattr(fused, f"ConvReLU{axes}d")(IN, OUT, SIZE)
    assert flops(model, eight_bits(2, IN, *[7] * axes)) == 2 * 2 * OUT * 5**axes * IN * SIZE**axes


@pytest.mark.parametrize("relu", ["", "_relu"])
@pytest.mark.parametrize("library", [torch.ops.quantized, torch.ops._quantized], ids=str)
def test_convolutions_that_another_engine_has(library, relu):
    """A sum may be fused to one; the kernel tells its shape all the same."""
    packed = static.Conv2d(IN, OUT, SIZE)._packed_params
    image, result = (torch.empty(2, n, side, side) for n, side in ((IN, 7), (OUT, 5)))
    expected = 2 * 2 * OUT * 25 * IN * 9
    plain = formula_for(getattr(library, f"conv2d{relu}").default)
    assert plain(image, packed, 1.0, 0, out_val=result) == expected
    summed = formula_for(getattr(torch.ops.quantized, f"conv2d_add{relu}").default)
    assert summed(image, result, packed, 1.0, 0, out_val=result) == expected
    packed = static.Conv3d(IN, OUT, SIZE)._packed_params
    image, result = torch.empty(2, IN, 7, 7, 7), torch.empty(2, OUT, 5, 5, 5)
    plain = formula_for(getattr(library, f"conv3d{relu}").default)
    assert plain(image, packed, 1.0, 0, out_val=result) == 2 * 2 * OUT * 125 * IN * 27


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("library", [torch.ops.quantized, torch.ops._quantized], ids=str)
def test_transposed_convolutions_that_another_engine_has(library, axes):
    """They are named twice."""
    packed = getattr(static, f"ConvTranspose{axes}d")(IN, OUT, SIZE)._packed_params
    image = torch.empty(2, IN, *[5] * axes)
    transposed = formula_for(getattr(library, f"conv_transpose{axes}d").default)
    assert transposed(image, packed, 1.0, 0, out_val=None) == 2 * 2 * IN * 5**axes * OUT * 3**axes


BETWEEN = {
    "batch norm": static.BatchNorm2d(4),
    "hard swish": static.Hardswish(0.1, 0),
    "ELU": static.ELU(0.1, 0),
    "leaky ReLU": static.LeakyReLU(0.1, 0),
    "sigmoid": static.Sigmoid(0.1, 0),
    "softmax": static.Softmax(-1, 0.1, 0),
    "ReLU6": static.ReLU6(),
    "ReLU": nn.ReLU(),
    "pooling": nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)),
    "sum": lambda x: static.QFunctional().add(x, x),
    "sum with ReLU": lambda x: static.QFunctional().add_relu(x, x),
    "sum with a number": lambda x: static.QFunctional().add_scalar(x, 2.0),
    "gate": lambda x: static.QFunctional().mul(x, x),
    "concatenation": lambda x: static.QFunctional().cat([x, x]),
    "back to floats": static.DeQuantize(),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_stands_between_products_is_free(name):
    """Known to be so, rather than unknown."""
    assert flops(BETWEEN[name], eight_bits(2, 4, 6, 6)) == 0


def test_lookups_are_free():
    """A quantised embedding is read."""
    rows = torch.tensor([1, 2, 3])
    assert flops(static.Embedding(10, 4), rows) == 0
    bags = static.EmbeddingBag(10, 4, mode="sum", include_last_offset=True)
    assert flops(bags, rows, torch.tensor([0, 2, 3])) == 0


def test_product_of_two_quantised_matrices():
    """Neither of them is packed."""
    product = static.QFunctional().matmul
    assert flops(product, eight_bits(2, 3), eight_bits(3, 5)) == 2 * 2 * 3 * 5


def test_quantisation_aware_training_costs_three_forwards():
    """Rounding and observing are elementwise work and reductions."""
    model = nn.Sequential(nn.Linear(IN, OUT), nn.ReLU(), nn.Linear(OUT, 5))
    model.qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")
    model = torch.ao.quantization.prepare_qat(model.train())
    forward = LINEAR + 2 * 3 * OUT * 5
    with pytest_nnscale.count() as counting:
        model(torch.randn(3, IN, requires_grad=True)).sum().backward()
    assert (counting.profile.flops, counting.profile.uncounted) == (3 * forward, ())


def test_eight_bits_by_eight_bits():
    """Integers, and floats with a scale."""
    left, right = torch.ones(32, 16, dtype=torch.int8), torch.ones(16, 8, dtype=torch.int8)
    assert flops(torch._int_mm, left, right) == 2 * 32 * 16 * 8
    scale = torch.tensor(1.0)
    left, right = torch.randn(16, 32), torch.randn(48, 32)
    left, right = left.to(torch.float8_e4m3fn), right.to(torch.float8_e4m3fn).t()
    product = functools.partial(torch._scaled_mm, out_dtype=torch.bfloat16)
    assert flops(product, left, right, scale, scale) == 2 * 16 * 32 * 48


def test_floats_by_packed_weights():
    """Of eight bits and of four, two by two in a byte; packing is free."""
    rows = torch.randn(4, 64, dtype=torch.bfloat16)
    weight, scales = torch.ones(32, 64, dtype=torch.int8), torch.ones(32, dtype=torch.bfloat16)
    assert flops(torch._weight_int8pack_mm, rows, weight, scales) == 2 * 4 * 64 * 32

    def packed(rows, weight, scales):
        weight = torch._convert_weight_to_int4pack_for_cpu(weight, 2)
        return torch._weight_int4pack_mm_for_cpu(rows, weight, 32, scales)

    four_bits, scales = torch.ones(32, 64, dtype=torch.int32), torch.ones(2, 32, 2).bfloat16()
    assert flops(packed, rows, four_bits, scales) == 2 * 4 * 64 * 32


ENDS = torch.tensor([3, 8], dtype=torch.int32)
HALF = {"dtype": torch.bfloat16}
GROUPED = {
    # Eight rows go to two experts, three and five of them.
    "rows": (torch.randn(8, 16, **HALF), torch.randn(2, 16, 32, **HALF), ENDS, 2 * 8 * 16 * 32),
    "batches": (
        torch.randn(2, 8, 16, **HALF),
        torch.randn(2, 16, 32, **HALF),
        None,
        2 * 2 * 8 * 16 * 32,
    ),
    "inner": (torch.randn(16, 8, **HALF), torch.randn(8, 32, **HALF), ENDS, 2 * 16 * 8 * 32),
    "columns": (torch.randn(2, 16, 24, **HALF), torch.randn(24, 8, **HALF), ENDS, 2 * 16 * 24 * 8),
}


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize("function", [torch._grouped_mm, F.grouped_mm], ids=["torch", "nn"])
def test_grouped_product(function, name):
    """Each row meets its own expert alone, forward and in both gradients."""
    left, right, ends, forward = GROUPED[name]

    def grouped(left, right):
        return function(left, right, offs=ends)

    assert flops(grouped, left, right) == forward
    operands = (x.clone().requires_grad_() for x in (left, right))
    assert flops(grouped, *operands, phase="training") == 3 * forward


def test_grouped_product_of_eight_bits():
    """A GPU's operator, whose scales change nothing."""
    left = torch.empty(8, 16, dtype=torch.float8_e4m3fn, device="meta")
    right = torch.empty(2, 16, 32, dtype=torch.float8_e4m3fn, device="meta")
    scaled = formula_for(torch.ops.aten._scaled_grouped_mm.default)
    assert scaled(left, right, None, None, ENDS, out_val=None) == 2 * 8 * 16 * 32
