"""Work belongs to the module that runs, or that made the autograd node which runs."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pytest_nnscale.counting.counter import Count, Counter


def counted(run) -> Count:
    with Counter() as counter:
        run()
    return counter.count()


def own_flops(count: Count) -> dict[str, int]:
    return {row.path: row.own_flops for row in count.modules if row.own_flops}


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, left, right):
        ctx.save_for_backward(left, right)
        return left @ right

    @staticmethod
    def backward(ctx, gradient):
        left, right = ctx.saved_tensors
        return gradient @ right.t(), left.t() @ gradient


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        return Product.apply(x, self.weight)


class Batched(nn.Module):
    def forward(self, x):
        return torch.bmm(x[None], x[None])[0]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.stages = nn.ModuleList([Custom(), Batched()])
        self.conv = nn.Conv1d(1, 1, 3)

    def forward(self, x):
        x = self.first(x)
        for stage in self.stages:
            x = stage(x)
        return self.conv(x[:, None])


def test_backward_work_belongs_to_the_module_of_its_forward():
    """Linear, custom functions, bmm and convolutions each get their own gradients' FLOPs."""
    count = counted(lambda: Net()(torch.randn(4, 4)).sum().backward())
    product, conv = 2 * 4 * 4 * 4, 2 * 4 * 2 * 3
    assert own_flops(count) == {
        "first": 2 * product,  # the input asks for no gradient
        "stages.0": 3 * product,
        "stages.1": 3 * product,
        "conv": 3 * conv,
    }


def test_parts_sum_to_the_whole():
    """Own numbers of all rows sum to the row of the root, which is the whole count."""
    count = counted(lambda: Net()(torch.randn(4, 4)).sum().backward())
    (whole,) = [row for row in count.modules if row.path == ""]
    assert whole.type == "Net"
    for kind, total in (
        ("flops", count.flops),
        ("kernels", count.kernels),
        ("memory", count.memory_bytes),
    ):
        assert sum(getattr(row, f"own_{kind}") for row in count.modules) == total
        assert getattr(whole, f"total_{kind}") == total


def test_containers_that_are_never_called_have_the_total_of_their_parts():
    """A ModuleList gets a row of its own, so that every level adds up."""
    rows = {row.path: row for row in counted(lambda: Net()(torch.randn(4, 4))).modules}
    assert rows["stages"].type == "ModuleList"
    assert rows["stages"].total_flops == 2 * (2 * 4 * 4 * 4)
    assert list(rows) == ["", "first", "stages", "stages.0", "stages.1", "conv"]


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputation_belongs_to_the_recomputed_module(reentrant):
    """Under checkpointing the second forward is backward work, of the module that does it again."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU()))

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return checkpoint(self.net[1], self.net[0](x), use_reentrant=reentrant)

    count = counted(lambda: Checkpointed()(torch.randn(4, 4)).sum().backward())
    product = 2 * 4 * 4 * 4
    assert count.forward_flops == 2 * product
    assert own_flops(count) == {"net.0": 2 * product, "net.1.0": 4 * product}


def test_shared_module_goes_by_its_first_name():
    """A module registered under two names is one row."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Linear(4, 4)
            self.decoder = self.encoder

        def forward(self, x):
            return self.decoder(self.encoder(x))

    assert own_flops(counted(lambda: Tied()(torch.randn(1, 4)))) == {"encoder": 2 * 2 * 16}


def test_several_roots_go_by_their_types():
    """Two models called side by side are two subtrees, numbered where their types are alike."""
    models = [nn.Linear(2, 2), nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 1))]

    def run():
        models[2](models[1](models[0](torch.randn(1, 2))))

    with Counter() as counter:
        run()
    assert counter.roots == tuple(models)
    assert own_flops(counter.count()) == {"Linear": 8, "Linear#2": 12, "Sequential.0": 6}


def test_part_called_by_itself_belongs_to_its_model():
    """Calling a model and later its head is one root, in whichever order."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with Counter() as counter:
        model(model[1](torch.randn(1, 2)))
    assert counter.roots == (model,)
    assert own_flops(counter.count()) == {"0": 8, "1": 16}


def test_module_hidden_in_a_list_hangs_below_its_caller():
    """What is called but not registered is still named, below the module that called it."""

    class Hiding(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = [nn.Linear(2, 2)]

        def forward(self, x):
            return self.hidden[0](x)

    assert own_flops(counted(lambda: Hiding()(torch.randn(1, 2)))) == {"Linear": 8}


def test_forward_that_raises_leaves_the_stack_clean():
    """Work after a failed forward is not booked on the module that failed."""

    class Failing(nn.Module):
        def forward(self, x):
            raise ValueError("shape")

    failing, linear = nn.Sequential(Failing()), nn.Linear(2, 2)

    def run():
        with pytest.raises(ValueError, match="shape"):
            failing(torch.ones(1))
        torch.ones(2, 2) @ torch.ones(2, 2)
        linear(torch.ones(1, 2))

    assert own_flops(counted(run)) == {"": 16, "Linear": 8}


def test_work_outside_any_module_belongs_to_the_whole():
    """A block without modules has one row."""
    (row,) = counted(lambda: torch.ones(2, 2) @ torch.ones(2, 2)).modules
    assert (row.path, row.type, row.own_flops) == ("", "", 16)


def test_module_with_an_uncounted_operator_below_is_incomplete():
    """The own FLOPs of such a module are no zero, nor are the totals of all above it complete."""

    class Exponential(nn.Module):
        def forward(self, x):
            return torch.linalg.matrix_exp(x)

    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(Exponential()))
    with torch.no_grad():
        rows = counted(lambda: model(torch.randn(4, 4))).modules
    assert {row.path: row.complete for row in rows} == {
        "": False,
        "0": True,
        "1": False,
        "1.0": False,
    }
