"""What hears: waves and spectrograms."""

import torch
import transformers as hf

from .family import SIZES, Family

_SPEECH = {
    **SIZES,
    "conv_dim": [32, 32, 32],
    "conv_stride": [5, 2, 2],
    "conv_kernel": [10, 3, 3],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
_WAVE = {"input_values": torch.linspace(-1, 1, 2000).view(1, 2000)}

SOUNDS = {
    "ast": Family(
        hf.ASTModel,
        hf.ASTConfig(**SIZES, max_length=64, num_mel_bins=32),
        {"input_values": torch.zeros(1, 64, 32)},
    ),
    "encodec": Family(
        hf.EncodecModel,
        hf.EncodecConfig(hidden_size=16, num_filters=8, codebook_size=16, codebook_dim=16),
        {"input_values": torch.linspace(-1, 1, 3200).view(1, 1, 3200)},
    ),
    "wav2vec2": Family(hf.Wav2Vec2Model, hf.Wav2Vec2Config(**_SPEECH), _WAVE),
}
