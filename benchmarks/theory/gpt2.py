"""GPT-2 small.

Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), table 2 and section 2.3:
12 layers of width 768 with the norms in front, 1024 positions, 50,257 byte pairs. The output layer is
the embedding.
"""

import torch
from torch import Tensor, nn

from .published import Published

LAYERS, WIDTH, HEADS, INNER = 12, 768, 12, 3072
WORDS, CONTEXT = 50_257, 1024


class GPT2(nn.Module):
    """Embeddings, causal layers, a last norm, and the embeddings again."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, INNER, activation="gelu", batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(WIDTH)
        self.layers = nn.TransformerEncoder(layer, LAYERS, norm, enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        positions = torch.arange(length, device=tokens.device)
        embedded = self.words(tokens) + self.positions(positions)
        later = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        return self.layers(embedded, later, is_causal=True) @ self.words.weight.T


def workload(length: int = CONTEXT) -> tuple[nn.Module, tuple[Tensor]]:
    """The model and one sequence of tokens, without values."""
    with torch.device("meta"):
        return GPT2().eval(), (torch.empty(1, length, dtype=torch.long),)


PUBLISHED = (
    Published(
        "GPT-2 small, 1024 tokens",
        workload,
        params="124,439,808",
        flops="291,648,307,200",
        source="transformers, GPT2Model; nanoGPT, transformer_sizing.ipynb",
    ),
)
