"""Every operator is counted, free or unknown; what could contract is never free."""

import re

import pytest
import torch
from torch import nn

from pytest_nnscale.counting.counter import Counter
from pytest_nnscale.counting.coverage import Work, classify, is_kernel
from pytest_nnscale.counting.formulas import registry
from pytest_nnscale.counting.free import FREE, FREE_ELSEWHERE, FREE_PRIMS, METADATA, NO_KERNEL
from pytest_nnscale.counting.shape_rules import registry as rules

CONTRACTS = re.compile(
    r"mm(?![aeiouy])|matmul|conv(?!ert)|lstm|gru|rnn|linear|attention|sdp|einsum|dot|mv|inner|outer"
    r"|kron|cdist|pdist|fft|linalg|lu_solve|lu_factor|cholesky|lstsq|svd|inverse|(?<!re)solve"
    r"|slogdet|geqrf|ormqr|matrix|multi_head|encoder"
)
# Named like a contraction, and none: interpolation, sums, a cross product in 3-D, elementwise...
INTERPOLATES = re.compile(r"_?upsample_")
HARMLESS = {
    "linalg_cross", "linalg_diagonal", "linalg_vector_norm", "linalg__powsum", "matrix_H",
    "_linalg_check_errors", "slice_inverse", "mvlgamma", "mvlgamma_", "_fused_sdp_choice",
}  # fmt: skip


def aten_overloads():
    names = {schema.name for schema in torch._C._jit_get_all_schemas()}
    for name in sorted(name for name in names if name.startswith("aten::")):
        packet = getattr(torch.ops.aten, name.removeprefix("aten::"), None)
        for overload in packet.overloads() if packet is not None else ():
            yield getattr(packet, overload)


def test_no_operator_that_could_contract_is_free():
    """Walking all of aten: what is named like a contraction is counted or unknown."""
    suspicious = {
        name
        for func in aten_overloads()
        for name in [str(func._schema.name).removeprefix("aten::")]
        if classify(func) is Work.FREE and CONTRACTS.search(name)
        if name not in HARMLESS and not INTERPOLATES.match(name)
    }
    assert suspicious == set()


def test_every_name_in_the_tables_is_an_operator():
    """A misspelt name in a table of free operators would protect nothing."""
    unknown = [n for n in sorted(FREE | NO_KERNEL | METADATA) if not hasattr(torch.ops.aten, n)]
    assert unknown == []


def test_prims_are_free_but_for_those_that_contract():
    """Every prim is known, and decompositions and Fourier transforms are not free."""
    import torch._prims

    names = {schema.name for schema in torch._C._jit_get_all_schemas()}
    prims = {name.removeprefix("prims::") for name in names if name.startswith("prims::")}
    assert prims >= FREE_PRIMS
    # Others define more of them, such as those of torch._inductor.
    operators = {name: getattr(torch.ops.prims, name).default for name in prims}
    operators = {name: operators[name] for name in prims & {*torch._prims.__all__}}
    assert {name for name, func in operators.items() if classify(func) is not Work.FREE} == {
        "svd", "fft_r2c", "fft_c2c", "fft_c2r", "_make_token", "_sink_tokens",
    }  # fmt: skip


def test_operators_of_other_libraries_are_unknown_but_for_stated_ones():
    """Box arithmetic of torchvision is free, its deformable convolution counts, others are unknown."""
    pytest.importorskip("torchvision")
    assert classify(torch.ops.torchvision.nms.default) is Work.FREE
    assert classify(torch.ops.torchvision.deform_conv2d.default) is Work.COUNTED
    assert classify(torch.ops.quantized.linear.default) is Work.COUNTED
    assert classify(torch.ops.symm_mem.fused_all_gather_matmul.default) is Work.UNKNOWN
    assert "torchvision::roi_align" in FREE_ELSEWHERE


@pytest.mark.parametrize(
    ("func", "computes"),
    [
        (torch.ops.aten.view.default, False),
        (torch.ops.aten.detach.default, False),
        (torch.ops.aten.empty.memory_format, False),
        (torch.ops.aten.t.default, False),
        (torch.ops.aten.add.Tensor, True),
        (torch.ops.aten.zeros.default, True),
        (torch.ops.aten.clone.default, True),
        (torch.ops.aten.mm.default, True),
    ],
)
def test_views_and_allocations_are_no_kernels(func, computes):
    """A kernel computes something: no view, no metadata, no bare allocation."""
    assert is_kernel(func) is computes


def unknown_in(module, *inputs):
    with torch.no_grad(), Counter() as counter:
        module(*inputs)
    return counter.count().uncounted


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args):
        return self.inner(*args)


class Exponential(nn.Module):
    def forward(self, x):
        return torch.linalg.matrix_exp(x)


def test_operator_without_a_formula_names_its_module():
    """How many products a matrix exponential takes depends on its norm: it is named, with a remedy."""
    (unknown,) = unknown_in(Wrapped(Exponential()), torch.randn(3, 4, 4))
    assert unknown.operator == "aten::linalg_matrix_exp"
    assert (unknown.module, unknown.module_type, unknown.calls) == ("inner", "Exponential", 1)
    assert unknown.shapes == "3x4x4"
    assert unknown.remedy == (
        "register a formula: @pytest_nnscale.flop_formula(torch.ops.aten.linalg_matrix_exp); "
        "or, if it does no contraction work: nnscale_free_operators = aten::linalg_matrix_exp"
    )


def test_call_that_a_formula_declines_is_unknown_and_says_why():
    """Least squares have a count by QR, and none by singular values."""
    a, b = torch.randn(4, 3), torch.randn(4, 2)
    assert unknown_in(lambda: torch.linalg.lstsq(a, b, driver="gels")) == ()
    (unknown,) = unknown_in(lambda: torch.linalg.lstsq(a, b, driver="gelsd"))
    assert unknown.remedy.startswith("least squares by gelsd have no agreed count; register")


@torch.library.custom_op("nnscale_tests::opaque", mutates_args=())
def opaque(x: torch.Tensor) -> torch.Tensor:
    return x @ x


def test_custom_operator_is_unknown_each_call_counted():
    """Any custom operator may contract; calls are added up, backward ones apart."""
    found = unknown_in(lambda x: opaque(opaque(x)), torch.randn(3, 3))
    assert [(u.operator, u.calls, u.shapes, u.backward) for u in found] == [
        ("nnscale_tests::opaque", 2, "3x3", False)
    ]


def test_common_layers_leave_nothing_unknown():
    """Norms, pools, activations, embeddings, losses and an optimiser step are known to be free."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.GroupNorm(2, 8),
        nn.InstanceNorm2d(8),
        nn.GELU(),
        nn.Hardswish(),
        nn.SiLU(),
        nn.PReLU(),
        nn.MaxPool2d(2),
        nn.AvgPool2d(2),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.LayerNorm(32),
        nn.RMSNorm(32),
        nn.Dropout(0.5),
        nn.Linear(32, 5),
    )
    optimizers = [torch.optim.Adam(model.parameters()), torch.optim.SGD(model.parameters(), 0.1)]
    with Counter() as counter:
        for loss in (nn.CrossEntropyLoss(), nn.MultiMarginLoss()):
            loss(model(torch.randn(2, 3, 8, 8)), torch.tensor([1, 2])).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    assert counter.count().uncounted == ()


# Of other builds of torch, or of versions before and after this one.
ELSEWHERE = {
    "aten::cholesky",
    "_quantized::conv_transpose3d",
    "torch_attn::_varlen_attn",
    "torch_attn::_varlen_attn_out",
    "torch_attn::_varlen_attn_backward",
}


def test_every_name_is_that_of_an_operator() -> None:
    """Formulas and shape rules go by names, and one that is misspelt would be met by no call."""
    pytest.importorskip("torchvision")  # which has the deformable convolution
    named = {*registry._of_ours, *(name for name, _ in rules._rules)}
    missing = set()
    for name in named - ELSEWHERE:
        namespace, _, rest = name.partition("::")
        packet, _, overload = rest.partition(".")
        try:
            found = getattr(getattr(torch.ops, namespace), packet)
            getattr(found, overload or "overloads")
        except AttributeError:
            missing.add(name)
    assert not missing
    assert len(named) > 250
