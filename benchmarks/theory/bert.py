"""BERT base, uncased, with its pooler.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding"
(arXiv:1810.04805), section 3: 12 layers of width 768, 12 heads, 30,522 word pieces.
"""

import torch
from torch import Tensor, nn

from .published import Published

LAYERS, WIDTH, HEADS, INNER = 12, 768, 12, 3072
WORDS, POSITIONS, SEGMENTS = 30_522, 512, 2


class BERT(nn.Module):
    """Embeddings of word, position and segment, an encoder, and a layer on the first token."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.positions = nn.Embedding(POSITIONS, WIDTH)
        self.segments = nn.Embedding(SEGMENTS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, INNER, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.pooler = nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        embedded = self.words(tokens) + self.positions(positions) + self.segments(segments)
        states = self.encoder(self.norm(embedded))
        return states, self.pooler(states[:, 0]).tanh()


def workload(length: int = 128) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """The model and one sequence of tokens with its segments, without values."""
    with torch.device("meta"):
        tokens = torch.empty(1, length, dtype=torch.long)
        return BERT().eval(), (tokens, tokens)


PUBLISHED = (
    Published(
        "BERT base, 128 tokens",
        workload,
        params="109M; 110M",
        flops="22.5 G; 29 G",
        source="arXiv:2004.02984, table 4; arXiv:2003.10555, table 1",
    ),
)
