"""What pruning, quantisation and distillation buy of one small encoder.

python benchmarks/theory/compression.py
"""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

import pytest_nnscale
from pytest_nnscale.meters.params import measure_params

LAYERS, WIDTH, HEADS, INNER, LENGTH, CLASSES = 4, 256, 4, 1024, 64, 10


class Block(nn.Module):
    """Attention and a feed-forward part, each behind a norm and added to its input."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.queries, self.keys, self.values, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, inner)
        self.down = nn.Linear(inner, WIDTH)

    def forward(self, states: Tensor) -> Tensor:
        states = states + self.attend(self.attention_norm(states))
        return states + self.down(functional.gelu(self.up(self.norm(states))))

    def attend(self, states: Tensor) -> Tensor:
        """Attention of every position to every other, in all heads."""
        heads = [
            project(states).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for project in (self.queries, self.keys, self.values)
        ]
        mixed = functional.scaled_dot_product_attention(*heads)
        return self.out(mixed.transpose(1, 2).flatten(2))


def encoder(layers: int = LAYERS, inner: int = INNER) -> nn.Sequential:
    """Blocks, and a classifier on the first position."""
    blocks = [Block(inner) for _ in range(layers)]
    return nn.Sequential(*blocks, First(), nn.Linear(WIDTH, CLASSES)).eval()


class First(nn.Module):
    """The first position alone."""

    def forward(self, states: Tensor) -> Tensor:
        return states[:, 0]


def linears(model: nn.Module) -> list[nn.Linear]:
    """All linear layers of a model."""
    return [part for part in model.modules() if isinstance(part, nn.Linear)]


def masked(model: nn.Sequential) -> nn.Sequential:
    """The smaller half of each weight masked: weights stay, and masks come beside them."""
    pruned = copy.deepcopy(model)
    for linear in linears(pruned):
        prune.l1_unstructured(linear, "weight", amount=0.5)
    return pruned


def zeroed(model: nn.Sequential) -> nn.Sequential:
    """The same with the masks multiplied in: zeros among dense weights."""
    pruned = masked(model)
    for linear in linears(pruned):
        prune.remove(linear, "weight")
    return pruned


def narrowed(model: nn.Sequential) -> nn.Sequential:
    """Half of the units in each feed-forward part taken out, those with the smallest weights."""
    pruned = copy.deepcopy(model)
    for block in pruned:
        if isinstance(block, Block):
            strength = block.up.weight.abs().sum(1)
            kept = strength.topk(len(strength) // 2).indices.sort().values
            up, down = nn.Linear(WIDTH, len(kept)), nn.Linear(len(kept), WIDTH)
            up.load_state_dict({"weight": block.up.weight[kept], "bias": block.up.bias[kept]})
            down.load_state_dict({"weight": block.down.weight[:, kept], "bias": block.down.bias})
            block.up, block.down = up, down
    return pruned.eval()


def quantised(model: nn.Sequential) -> nn.Sequential:
    """Weights of linear layers in 8 bits, activations quantised while it runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao is deprecated, and still what torch ships
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


def student(model: nn.Sequential) -> nn.Sequential:
    """Half of the layers, every other one of the teacher's: where distillation starts."""
    return nn.Sequential(*copy.deepcopy(model)[:-2:2], *copy.deepcopy(model)[-2:])


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to make the encoder smaller, and the type of the numbers that it is given."""

    name: str
    make: Callable[[nn.Sequential], nn.Sequential]
    dtype: torch.dtype = torch.float32

    def workload(self, model: nn.Sequential) -> tuple[nn.Sequential, tuple[Tensor]]:
        """The variant of a model, and one sequence for it."""
        return self.make(model), (torch.rand(1, LENGTH, WIDTH, dtype=self.dtype),)


VARIANTS = (
    Variant("float32", copy.deepcopy),
    Variant("half of the weights masked", masked),
    Variant("half of the weights zero", zeroed),
    Variant("half of the inner units out", narrowed),
    Variant("bfloat16", lambda model: copy.deepcopy(model).bfloat16(), torch.bfloat16),
    Variant("float16", lambda model: copy.deepcopy(model).half(), torch.float16),
    Variant("int8, dynamic", quantised),
    Variant("half of the layers", student),
)


def main() -> None:
    """Print what each variant holds, does and needs."""
    torch.manual_seed(0)
    model = encoder()
    table = Table("variant", title="1 multiply-accumulate = 2 FLOP")
    for heading in ("params", "not zero", "size, bytes", "FLOPs", "memory, bytes"):
        table.add_column(heading, justify="right")
    for variant in VARIANTS:
        smaller, args = variant.workload(model)
        with torch.no_grad():
            profile = pytest_nnscale.profile(smaller, args=args)
        nonzero = int(measure_params([smaller], nonzero=True).value or 0)
        figures = (profile.params, nonzero, profile.size_bytes, profile.flops, profile.memory_bytes)
        table.add_row(variant.name, *(f"{figure:,}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    main()
