"""TorchScript that was rewritten for speed runs past the dispatcher, and that is told."""

import pytest
import torch
from torch import nn

from pytest_nnscale.counting.counter import Count, Counter

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs mkldnn"),
]


def counted(run) -> Count:
    with torch.no_grad(), Counter() as counter:
        run()
    return counter.count()


def test_convolution_optimised_for_inference_is_unknown():
    """mkldnn's own convolutions reach no dispatcher; each call of the module is told."""
    model = torch.jit.optimize_for_inference(
        torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3)).eval())
    )
    outer = nn.Sequential(model)
    x = torch.randn(1, 3, 8, 8)
    (unknown,) = counted(lambda: outer(outer(x)[:, :3])).uncounted
    assert (unknown.operator, unknown.calls) == ("prim::mkldnn_convolution", 2)
    assert (unknown.module, unknown.module_type) == ("0", "Sequential")
    assert "optimize_for_inference" in unknown.remedy
    assert unknown.unseen


def test_group_that_a_fuser_made_at_run_time_is_unknown():
    """oneDNN Graph fuses convolutions after some runs, in the graph that was executed only."""
    x = torch.randn(1, 3, 8, 8)
    torch.jit.enable_onednn_fusion(True)
    try:
        model = torch.jit.freeze(torch.jit.trace(nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), x))
        with torch.no_grad():
            for _ in range(3):
                model(x)
        operators = {unknown.operator for unknown in counted(lambda: model(x)).uncounted}
    finally:
        torch.jit.enable_onednn_fusion(False)
    assert operators == {"prim::oneDNNFusionGroup"}


def test_frozen_linear_still_counts():
    """Freezing alone leaves operators that are dispatched, and nothing is unknown."""
    model = torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()))
    count = counted(lambda: model(torch.randn(2, 4)))
    assert (count.flops, count.uncounted) == (2 * 2 * 4 * 3, ())
