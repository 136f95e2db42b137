"""wav2vec 2.0 base, without a head, and with the one that spells.

Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations"
(arXiv:2006.11477), section 4.2: seven convolutions of 512 channels, a convolution of kernel 128 in 16
groups in place of positions, 12 layers of width 768 with 3072 inside and 8 heads.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from .published import Published

KERNELS, STRIDES, CHANNELS = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), 512
LAYERS, WIDTH, HEADS, INNER = 12, 768, 8, 3072
POSITIONS, GROUPS = 128, 16
LETTERS = 32
SAMPLES = 30_480  # 1.9 s at 16 kHz


class Wav2Vec2(nn.Module):
    """Samples to a vector every 20 ms; with `letters`, to a score for each."""

    def __init__(self, letters: int = 0) -> None:
        super().__init__()
        shapes = zip((1, *[CHANNELS] * 6), KERNELS, STRIDES, strict=True)
        self.encoder = nn.ModuleList(
            nn.Conv1d(channels, CHANNELS, kernel, stride, bias=False)
            for channels, kernel, stride in shapes
        )
        self.encoder_norm = nn.GroupNorm(CHANNELS, CHANNELS)
        self.features_norm = nn.LayerNorm(CHANNELS)
        self.projection = nn.Linear(CHANNELS, WIDTH)
        self.mask = nn.Parameter(torch.empty(WIDTH))  # stands for masked frames in training
        self.positions = weight_norm(
            nn.Conv1d(WIDTH, WIDTH, POSITIONS, padding=POSITIONS // 2, groups=GROUPS), dim=2
        )
        self.norm = nn.LayerNorm(WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, INNER, activation="gelu", batch_first=True)
        self.context = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, letters) if letters else nn.Identity()

    def forward(self, samples: Tensor) -> Tensor:
        features = self.encoder_norm(self.encoder[0](samples[:, None]))
        for convolution in self.encoder[1:]:
            features = convolution(functional.gelu(features))
        frames = self.projection(self.features_norm(functional.gelu(features).mT))
        near = self.positions(frames.mT)[..., :-1]  # an even kernel gives one frame too many
        return self.head(self.context(self.norm(frames + functional.gelu(near).mT)))


def workload(samples: int = SAMPLES, letters: int = LETTERS) -> tuple[nn.Module, tuple[Tensor]]:
    """The model and one waveform, without values."""
    with torch.device("meta"):
        return Wav2Vec2(letters).eval(), (torch.empty(1, samples),)


PUBLISHED = (
    Published(
        "wav2vec 2.0 base, 30,480 samples",
        workload,
        params="94.4M",
        flops="26.843 G",
        source="Open Model Zoo, wav2vec2-base",
    ),
)
