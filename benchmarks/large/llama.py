"""A decoder in the shape of Llama 3 70B, in plain torch, on the meta device.

Touvron et al., "LLaMA" (arXiv:2302.13971), section 2.2, and "The Llama 3 Herd of Models"
(arXiv:2407.21783), table 3: RMSNorm in front of every part, SwiGLU, rotary embeddings, keys and
values shared by groups of query heads, no biases, an output layer apart from the embedding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a decoder; the defaults are those of 70B."""

    layers: int = 80
    width: int = 8192
    heads: int = 64
    key_heads: int = 8
    inner: int = 28_672
    words: int = 128_256

    @property
    def head(self) -> int:
        """The width of one head."""
        return self.width // self.heads

    @property
    def keys(self) -> int:
        """The width of all keys of a token, and of all values."""
        return self.key_heads * self.head

    @property
    def params(self) -> int:
        """Embedding and output layer; in a layer four projections, three matrices, two norms."""
        attention = 2 * self.width**2 + 2 * self.width * self.keys
        feed_forward = 3 * self.width * self.inner
        layer = attention + feed_forward + 2 * self.width
        return 2 * self.words * self.width + self.layers * layer + self.width

    def flops(self, tokens: int, *, training: bool = False) -> int:
        """What one sequence costs; 1 multiply-accumulate = 2 FLOP, a causal mask spares nothing.

        Each matrix meets each token once, in training three times: forward, for the gradient of
        what came in, for its own. Attention is two products of tokens by tokens, and backward
        five, of which one makes the scores again.
        """
        attention = 2 * self.width**2 + 2 * self.width * self.keys
        layer = attention + 3 * self.width * self.inner
        matrices = tokens * (self.layers * layer + self.words * self.width)
        product = self.layers * tokens**2 * self.width
        if training:
            return 2 * (3 * matrices + (2 + 5) * product)
        return 2 * (matrices + 2 * product)


SEVENTY_BILLION = Shape()


def rotated(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each pair of numbers of a head by an angle that grows with the position."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cosines + torch.cat((-second, first), dim=-1) * sines


class Attention(nn.Module):
    """Causal attention; several query heads share one head of keys and values."""

    def __init__(self, of: Shape) -> None:
        super().__init__()
        self.head = of.head
        self.queries = nn.Linear(of.width, of.width, bias=False)
        self.keys = nn.Linear(of.width, of.keys, bias=False)
        self.values = nn.Linear(of.width, of.keys, bias=False)
        self.out = nn.Linear(of.width, of.width, bias=False)

    def forward(self, states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        queries, keys, values = (
            part(states).unflatten(-1, (-1, self.head)).transpose(1, 2)
            for part in (self.queries, self.keys, self.values)
        )
        queries, keys = rotated(queries, cosines, sines), rotated(keys, cosines, sines)
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, is_causal=True, enable_gqa=True
        )
        return self.out(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """SwiGLU: one matrix opens the gates of another, a third leads back."""

    def __init__(self, of: Shape) -> None:
        super().__init__()
        self.gate = nn.Linear(of.width, of.inner, bias=False)
        self.up = nn.Linear(of.width, of.inner, bias=False)
        self.down = nn.Linear(of.inner, of.width, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(states)) * self.up(states))


class Layer(nn.Module):
    """Attention, then the feed-forward part, each behind its norm and added to what came in."""

    def __init__(self, of: Shape) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(of.width, eps=1e-5)
        self.attention = Attention(of)
        self.feed_forward_norm = nn.RMSNorm(of.width, eps=1e-5)
        self.feed_forward = FeedForward(of)

    def forward(self, states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        states = states + self.attention(self.attention_norm(states), cosines, sines)
        return states + self.feed_forward(self.feed_forward_norm(states))


class Llama(nn.Module):
    """From tokens to the logits of every next token."""

    def __init__(self, of: Shape) -> None:
        super().__init__()
        self.head = of.head
        self.embedding = nn.Embedding(of.words, of.width)
        self.layers = nn.ModuleList(Layer(of) for _ in range(of.layers))
        self.norm = nn.RMSNorm(of.width, eps=1e-5)
        self.out = nn.Linear(of.width, of.words, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        states = self.embedding(tokens)
        cosines, sines = (wave.to(states.dtype) for wave in self._waves(tokens))
        for layer in self.layers:
            states = layer(states, cosines, sines)
        return self.out(self.norm(states))

    def _waves(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosine and sine of every position's angles, in single precision."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        exponents = torch.arange(0, self.head, 2, device=tokens.device) / self.head
        angles = positions[:, None] / 500_000**exponents
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()


def workload(of: Shape = SEVENTY_BILLION, tokens: int = 4096) -> tuple[Llama, tuple[Tensor]]:
    """The model in bfloat16 and one sequence of tokens, without values."""
    with torch.device("meta"):
        model = Llama(of).to(torch.bfloat16).eval()
        return model, (torch.empty(1, tokens, dtype=torch.long),)
