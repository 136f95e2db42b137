"""Where shapes are not enough the model is run, and the count says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from pytest_nnscale import observing, profile
from pytest_nnscale.counting.ledger import Count
from pytest_nnscale.errors import CannotMeasure
from pytest_nnscale.workload import Workload

r = torch.rand


class Of(nn.Module):
    """A model whose forward is a function of its parts and inputs."""

    def __init__(self, function: Callable[..., Any], *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, *args: Any) -> Any:
        return self.function(*self.parts, *args)


def linear(function: Callable[..., Any]) -> nn.Module:
    return Of(function, nn.Linear(8, 8))


def rows() -> Tensor:
    return r(4, 8)


@torch.library.custom_op("nnscale_traces::no_fake", mutates_args=())
def no_fake(x: Tensor) -> Tensor:
    return x * 2


@torch.library.custom_op("nnscale_traces::with_fake", mutates_args=())
def with_fake(x: Tensor) -> Tensor:
    return x * 2


@with_fake.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def swallowing(inner: nn.Module, x: Tensor) -> Tensor:
    y = inner(x)
    try:
        scale = y.sum().item()
    except Exception:
        return y  # a shorter way, that a run does not take
    return inner(inner(y)) * scale


def swallowing_a_mask(inner: nn.Module, x: Tensor) -> Tensor:
    y = inner(x)
    try:
        return inner(y[y.sum(1) < 1e9])
    except BaseException:
        return y


def packed(lstm: nn.Module, x: Tensor) -> Tensor:
    steps = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 2]), batch_first=True)
    return lstm(steps)[0].data


def nested(inner: nn.Module, x: Tensor) -> Tensor:
    both = torch.nested.nested_tensor([x[:2], x])
    return inner(both).to_padded_tensor(0.0)


def scripted() -> nn.Module:
    return Of(lambda m, x: m(x), torch.jit.script(nn.Linear(8, 8)))


def scripted_function() -> nn.Module:
    double = torch.jit.script(_double)
    return linear(lambda m, x: double(m(x)))


def _double(x: Tensor) -> Tensor:
    return x * 2


def quantised() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(8, 8)))


def routed(first: nn.Module, second: nn.Module, x: Tensor) -> Tensor:
    """Sends each row to one of two experts."""
    chosen = first(x).argmax(-1) % 2
    out = torch.zeros_like(x)
    for number, expert in enumerate((first, second)):
        where = (chosen == number).nonzero()[:, 0]
        out = out.index_add(0, where, expert(x[where]))
    return out


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    return model


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], str]] = {
    "mask": (lambda: linear(lambda m, x: m(x)[m(x) > 0]), rows, "aten::index"),
    "item": (lambda: linear(lambda m, x: m(x) * m(x).sum().item()), rows, "_local_scalar_dense"),
    "nonzero": (lambda: linear(lambda m, x: m(x).nonzero() * m(x).sum()), rows, "nonzero"),
    "where": (lambda: linear(lambda m, x: torch.where(m(x) > 0)[0] * m(x).sum()), rows, "nonzero"),
    "unique": (lambda: linear(lambda m, x: m(x).round().unique()), rows, "unique"),
    "numpy": (lambda: linear(lambda m, x: m(x) + torch.from_numpy(m(x).detach().numpy())), rows, "numpy"),
    "tolist": (lambda: linear(lambda m, x: m(x) * m(x).sum(1).tolist()[0]), rows, "."),
    "a branch": (lambda: linear(lambda m, x: m(x) if m(x).mean() < 1e9 else m(m(x))), rows, "_local_scalar_dense"),
    "printing": (lambda: linear(lambda m, x: m(x) * len(f"{m(x).sum():.3f}")), rows, "."),
    "equal": (lambda: linear(lambda m, x: m(x) * torch.equal(m(x), x)), rows, "equal"),
    "no fake kernel": (lambda: linear(lambda m, x: m(no_fake(x.clone()))), rows, "no_fake"),
    "scripted function": (scripted_function, rows, "TorchScript"),
    "quantised": (quantised, rows, "packed"),
    "packed sequence": (lambda: Of(packed, nn.LSTM(8, 8, batch_first=True)), lambda: r(2, 3, 8), "_pack_padded"),
    "nested": (lambda: linear(nested), rows, "nest"),
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), rows, "azy"),
    "routing": (lambda: Of(routed, nn.Linear(8, 8), nn.Linear(8, 8)), rows, "nonzero"),
    "sparse": (lambda: linear(lambda m, x: m(x) @ torch.eye(8).to_sparse()), rows, "sparse"),
    "conjugate": (lambda: linear(lambda m, x: torch.view_as_complex(m(x).view(4, 4, 2)).conj().mul(2).real), rows, "conj"),
    "an address": (lambda: linear(lambda m, x: m(x) * (m(x).data_ptr() > 0)), rows, "address"),
    "a copy": (lambda: linear(lambda m, x: m(x) + __import__("copy").deepcopy(m(x).detach())), rows, "copied"),
    "every error is swallowed": (lambda: linear(swallowing), rows, "_local_scalar_dense"),
    "even what is no Exception": (lambda: linear(swallowing_a_mask), rows, "aten::index"),
}  # fmt: skip


def counted(model: nn.Module, x: Tensor) -> Count:
    return observing.count_apart(Workload(model, (x,))).count()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_what_needs_values_is_run(name: str) -> None:
    """The numbers are those of a run, the method says so, and the count says why."""
    make, inputs, why = CASES[name]
    torch.manual_seed(0)
    model, x = make().eval(), inputs()
    count = counted(model, x)
    assert count.method == "executed"
    assert why in count.why_executed
    assert count.flops == observing._execute(Workload(model, (x,))).count().flops


@pytest.mark.filterwarnings("ignore")
def test_a_scripted_part_is_named() -> None:
    """What keeps a trace from it is that it runs in TorchScript."""
    count = counted(scripted(), rows())
    assert count.method == "executed"
    assert "TorchScript" in count.why_executed


def test_profile_says_that_it_ran() -> None:
    """The method is on the profile, too."""
    found = profile(linear(lambda m, x: m(x)[m(x) > 0]), args=(rows(),))
    assert (found.method, found.flops) == ("executed", 2 * 2 * 4 * 8 * 8)


def test_an_lstm_in_training_is_run() -> None:
    """Only oneDNN knows how much it keeps for the backward pass."""
    count = observing.count_apart(Workload(nn.LSTM(8, 8), (r(5, 3, 8),), phase="training")).count()
    assert (count.method, count.backward) == ("executed", True)
    assert "oneDNN" in count.why_executed


@pytest.mark.parametrize("way", ["whole", "a view", "a copy"])
def test_an_input_that_was_written_is_not_asked(way: str) -> None:
    """A trace writes nothing: what the input holds is not what it would hold by then."""

    def forward(inner: nn.Module, x: Tensor) -> Tensor:
        if way == "whole":
            x.mul_(-1)
        elif way == "a view":
            x[:2].mul_(-1)
            x[2:].mul_(-1)
        else:
            x.copy_(-inner(x).abs() - 1)
        return inner(x) if x.sum() > 0 else inner(inner(x))

    model, x = linear(forward), rows()
    count = counted(model, x)
    assert count.method == "executed"
    assert count.flops == (2 + (way == "a copy")) * 512


def test_an_operator_with_a_fake_kernel_is_traced() -> None:
    """Its author has told what it returns."""
    assert counted(linear(lambda m, x: m(with_fake(x.clone()))), rows()).method == "traced"


class TestOnMeta:
    """A model on meta has the numbers of the same one with weights."""

    MODELS: ClassVar[dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Any, ...]]]]] = {
        "layers": (lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU()), lambda: (rows(),)),
        "norms": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), lambda: (r(2, 3, 8, 8),)),
        "encoder": (
            lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True),
            lambda: (r(2, 5, 16),),
        ),
        "GRU": (lambda: nn.GRU(8, 8), lambda: (r(5, 3, 8),)),
        "embedding": (
            lambda: nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 4)),
            lambda: (torch.zeros(2, 3, dtype=torch.long),),
        ),
        "tensors made inside": (
            lambda: linear(lambda m, x: m(x) + torch.arange(8, device=x.device) + torch.zeros(8, device=x.device)),
            lambda: (rows(),),
        ),
        "a mask made inside": (
            lambda: linear(lambda m, x: (m(x) @ x.T).masked_fill(torch.ones(4, 4, device=x.device).triu(1) > 0, -1.0)),
            lambda: (rows(),),
        ),
        "tied weights": (tied, lambda: (rows(),)),
        "a view of a weight": (
            lambda: linear(lambda m, x: m(x) @ m.weight[:4].T.contiguous()),
            lambda: (rows(),),
        ),
    }  # fmt: skip

    @pytest.mark.parametrize("phase", ["inference", "training"])
    @pytest.mark.parametrize("name", MODELS)
    def test_it_counts_as_the_real_one(self, name: str, phase: Any) -> None:
        """Built there with its buffers, and fed there."""
        make, inputs = self.MODELS[name]
        args = inputs()
        real = make().train(phase == "training")
        with torch.device("meta"):
            there = make().train(phase == "training")
        away = tuple(each.to("meta") for each in args)
        one, other = (profile(m, args=a, phase=phase) for m, a in ((real, args), (there, away)))
        for field in ("method", "params", "flops", "macs", "size_bytes", "memory_bytes", "kernels"):
            assert getattr(one, field) == getattr(other, field), field
        assert one.held == other.held
        assert one.modules == other.modules

    def test_its_parameters_are_parameters(self) -> None:
        """Also while others stand in for them."""

        def forward(inner: nn.Module, x: Tensor) -> Tensor:
            assert isinstance(inner.weight, nn.Parameter)
            assert [*map(id, inner.parameters())] == [id(inner.weight), id(inner.bias)]
            return inner(x)

        model = linear(forward).to("meta")
        assert profile(model, args=(rows().to("meta"),)).method == "traced"

    def test_it_is_on_meta_afterwards(self) -> None:
        """What stood in for its weights is gone, and they are the same objects."""
        model = nn.Sequential(nn.Linear(8, 8, device="meta"), nn.BatchNorm1d(8, device="meta"))
        before = [*map(id, (*model.parameters(), *model.buffers()))]
        profile(model, args=(torch.rand(4, 8, device="meta"),), phase="training")
        assert [*map(id, (*model.parameters(), *model.buffers()))] == before
        assert all(each.is_meta for each in (*model.parameters(), *model.buffers()))
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_what_needs_values_says_why_there_are_none(self) -> None:
        """No traceback of torch's, but the operator that asks for values, and what to do."""
        model = linear(lambda m, x: m(x)[m(x) > 0]).to("meta")
        with pytest.raises(CannotMeasure, match=r"on meta.*aten::index"):
            profile(model, args=(rows().to("meta"),))

    def test_a_call_that_is_wrong_shows_what_torch_says(self) -> None:
        """A mistake in shapes is the user's, on meta too."""
        with pytest.raises(RuntimeError, match="reduction dim"):
            profile(nn.Linear(8, 8, device="meta"), args=(torch.rand(4, 7, device="meta"),))
