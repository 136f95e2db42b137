"""A trace counts what a run counts, in every field."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pytest_nnscale import profile

r = torch.rand


class Of(nn.Module):
    """A model whose forward is a function of its parts and inputs."""

    def __init__(self, function: Callable[..., Any], *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*self.parts, *args, **kwargs)


@dataclasses.dataclass
class Batch:
    image: Tensor
    label: Tensor


def image() -> Tensor:
    return r(2, 3, 8, 8)


def rows(width: int = 8) -> Tensor:
    return r(4, width)


def shared() -> nn.Module:
    inner = nn.Linear(8, 8)
    return nn.Sequential(inner, nn.ReLU(), inner, nn.Sequential(inner))


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    return model


def autocast(inner: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return inner(inner(x))


def without_gradients(inner: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = inner(x)
    return inner(x) + y


def inferring(inner: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        y = inner(x)
    return inner(x) + y.clone() if not y.is_inference() else inner(x)


class Counting(nn.Module):
    """Writes its buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = self.inner(x)
        self.mean.mul_(0.9).add_(y.detach().mean(0), alpha=0.1)
        self.mean = self.mean * 2
        return y - self.mean


def made(inner: nn.Module, x: Tensor) -> Tensor:
    y = inner(x) + torch.zeros(8) + torch.ones(8, device=x.device) * torch.full((1,), 2.0)
    y = y + torch.arange(8, dtype=x.dtype) + torch.tensor([1.0]) + torch.tensor(2)
    return y + torch.randn(4, 8, dtype=torch.float64).to(y.dtype) + torch.linspace(0, 1, 8)


def masked(inner: nn.Module, x: Tensor) -> Tensor:
    scores = inner(x) @ x.T
    mask = torch.arange(4)[:, None] >= torch.arange(4)
    scores = scores.masked_fill(~mask, float("-inf")) + torch.tril(torch.ones(4, 4)).log()
    return scores.softmax(-1) @ x


def branching(inner: nn.Module, x: Tensor) -> Tensor:
    """Asks its input, whose values are there."""
    return inner(x) if x.sum().item() > 0 and bool((x >= 0).all()) else inner(inner(x))


def other_weights(inner: nn.Module, x: Tensor) -> Tensor:
    weights = {name: 2 * weight for name, weight in inner.named_parameters()}
    return torch.func.functional_call(inner, weights, (x,))


def gradient_inside(inner: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(inner(x).square().sum(), x, create_graph=True)
    return inner(x) + slope


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[0].register_forward_hook(lambda _module, _args, out: out * 2)
    model[1].register_forward_pre_hook(lambda _module, args: (args[0] + 1,))
    model[1].register_full_backward_hook(lambda _module, grads, _outs: (grads[0] * 2,))
    return model


def residual(norm: nn.Module, conv: nn.Module, x: Tensor) -> Tensor:
    return functional.relu(norm(conv(x)).add_(x), inplace=True)


def outputs(inner: nn.Module, x: Tensor) -> Any:
    return {"out": inner(x), "more": [inner(x).sum(), (x, None, 3)]}


def attention(**how: Any) -> nn.Module:
    return Of(lambda m, x: m(x, x, x, **how), nn.MultiheadAttention(16, 2, batch_first=True))


def encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)


def linear(function: Callable[..., Any]) -> nn.Module:
    return Of(function, nn.Linear(8, 8))


parametrizations = torch.nn.utils.parametrizations
TOKENS = torch.tensor([[1, 2, 3], [4, 0, 1]])

MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Any, ...]]]] = {
    "layers": (lambda: nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 2)), lambda: (rows(),)),
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(True), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(inplace=True)
        ),
        lambda: (image(),),
    ),
    "channels last": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8)).to(memory_format=torch.channels_last),
        lambda: (image().to(memory_format=torch.channels_last),),
    ),
    "transposed convolution": (lambda: nn.ConvTranspose2d(3, 4, 3, 2), lambda: (image(),)),
    "in place": (lambda: Of(residual, nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1)), lambda: (image(),)),
    "shared module": (shared, lambda: (rows(),)),
    "tied weights": (tied, lambda: (rows(),)),
    "called twice": (lambda: linear(lambda m, x: m(x) + m(m(x))), lambda: (rows(),)),
    "a part is called by its name": (lambda: linear(lambda m, x: m.forward(x)), lambda: (rows(),)),
    "functions alone": (lambda: linear(lambda m, x: functional.linear(x, m.weight, m.bias).relu()), lambda: (rows(),)),
    "checkpoint": (
        lambda: linear(lambda m, x: checkpoint(m, m(x), use_reentrant=False)),
        lambda: (rows(),),
    ),
    "checkpoint, reentrant": (
        lambda: linear(lambda m, x: checkpoint(m, m(x), use_reentrant=True)),
        lambda: (rows(),),
    ),
    "autocast": (lambda: linear(autocast), lambda: (rows(),)),
    "no_grad inside": (lambda: linear(without_gradients), lambda: (rows(),)),
    "inference_mode inside": (lambda: linear(inferring), lambda: (rows(),)),
    "a gradient inside": (lambda: linear(gradient_inside), lambda: (rows(),)),
    "vmap": (lambda: linear(lambda m, x: torch.vmap(m)(x)), lambda: (rows(),)),
    "weight_norm": (lambda: parametrizations.weight_norm(nn.Linear(8, 8)), lambda: (rows(),)),
    "spectral_norm": (lambda: parametrizations.spectral_norm(nn.Linear(8, 8)), lambda: (rows(),)),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(8, 8)), lambda: (rows(),)),
    "buffers": (Counting, lambda: (rows(),)),
    "GRU": (lambda: nn.GRU(8, 8, 2, bidirectional=True), lambda: (r(5, 3, 8),)),
    "RNN": (lambda: nn.RNN(8, 8, batch_first=True), lambda: (r(5, 3, 8),)),
    "LSTM cell": (lambda: nn.LSTMCell(8, 8), lambda: (rows(),)),
    "GRU cell": (lambda: nn.GRUCell(8, 8), lambda: (rows(),)),
    "transformer": (
        lambda: nn.Transformer(16, 2, 1, 1, 32, batch_first=True),
        lambda: (r(2, 5, 16), r(2, 4, 16)),
    ),
    "encoder": (encoder, lambda: (r(2, 5, 16),)),
    "attention": (lambda: attention(), lambda: (r(2, 5, 16),)),
    "attention, no weights": (lambda: attention(need_weights=False), lambda: (r(2, 5, 16),)),
    "embedding": (lambda: nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2)), lambda: (TOKENS,)),
    "embedding bag": (lambda: nn.EmbeddingBag(10, 4), lambda: (TOKENS,)),
    "einsum": (lambda: linear(lambda m, x: torch.einsum("bi,bj->bij", m(x), x)), lambda: (rows(),)),
    "fft": (lambda: linear(lambda m, x: torch.fft.irfft(torch.fft.rfft(m(x)) * 2)), lambda: (rows(),)),
    "made inside": (lambda: linear(made), lambda: (rows(),)),
    "a mask made inside": (lambda: linear(masked), lambda: (rows(),)),
    "a branch on the input": (lambda: linear(branching), lambda: (rows(),)),
    "functional_call": (lambda: linear(other_weights), lambda: (rows(),)),
    "hooks": (hooked, lambda: (rows(),)),
    "a dataclass": (
        lambda: linear(lambda m, batch: m(batch.image) + batch.label),
        lambda: (Batch(rows(), rows()),),
    ),
    "a dict of lists": (
        lambda: linear(lambda m, given: m(given["x"][0]) + given["x"][1][0]),
        lambda: ({"x": [rows(), (rows(), None)]},),
    ),
    "several outputs": (lambda: linear(outputs), lambda: (rows(),)),
    "an input written": (lambda: linear(lambda m, x: m(x.add_(1))), lambda: (rows(),)),
    "a weight written": (
        lambda: linear(lambda m, x: m(x + 0 * m.weight.data.mul_(0.5)[:4])),
        lambda: (rows(),),
    ),
    "more than is small": (lambda: Of(lambda m, x: m(x[:, 0]), nn.Linear(200, 8)), lambda: (r(100, 2, 200),)),
}  # fmt: skip


@pytest.mark.parametrize("phase", ["inference", "training"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore")
def test_a_trace_equals_a_run(both: Any, name: str, phase: Any) -> None:
    """FLOPs, kernels, memory and who holds it, rows, devices: all fields."""
    make, inputs = MODELS[name]
    torch.manual_seed(0)
    count = both(make().train(phase == "training"), inputs(), phase)
    assert count.operators


def test_an_lstm_in_inference_equals_a_run(both: Any) -> None:
    """Its kernel is one of oneDNN, whose outputs follow from shapes."""
    assert both(nn.LSTM(8, 16, 2, bidirectional=True).eval(), (r(5, 3, 8),)).flops


def test_arguments_by_name_equal_a_run(both: Any) -> None:
    """Named ones are booked as the others are."""
    model = Of(lambda m, x, *, scale: m(x) * scale, nn.Linear(8, 8))
    assert both(model, (rows(),), kwargs={"scale": r(8)}).flops


@pytest.mark.parametrize("phase", ["inference", "training"])
@pytest.mark.parametrize("way", ["forward", "function", "closure", "partial"])
def test_a_model_behind_a_function_equals_a_run(both: Any, way: str, phase: Any) -> None:
    """Whichever way it is called, its rows are there."""
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))

    def run(x: Tensor) -> Tensor:
        return model(x) * 2

    ways: dict[str, Any] = {
        "forward": model.forward,
        "function": run,
        "closure": lambda x: model[1](model[0](x)),
        "partial": functools.partial(run),
    }
    count = both(ways[way], (rows(),), phase)
    assert {row.path for row in count.modules} >= {""}


def test_profile_says_that_it_traced() -> None:
    """Nothing was computed, and the profile tells."""
    found = profile(nn.Linear(8, 8), args=(rows(),))
    assert (found.method, found.flops) == ("traced", 2 * 4 * 8 * 8)


def test_nothing_is_computed() -> None:
    """A million million multiplications take no time, and no memory."""
    side = 1 << 20
    weight = r(1).expand(side, side)
    found = profile(lambda x: x @ weight, args=(weight,))
    assert (found.method, found.flops) == ("traced", 2 * side**3)


@pytest.mark.slow
def test_the_first_trace_of_a_process_counts_as_later_ones() -> None:
    """In a process of its own: torch imports much at the first of its meta kernels."""
    program = (
        "import torch\n"
        "from torch import nn\n"
        "from pytest_nnscale import profile\n"
        "model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 2))\n"
        "print(*(profile(model, args=(torch.rand(4, 8),)).memory_bytes for _ in range(2)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    first, second = done.stdout.split()
    assert first == second
