"""Encoders with a decoder that attends to them."""

import torch
import transformers as hf

from .family import BATCH, IDS, INNER, LAYERS, TARGETS, WIDTH, WORDS, Family

_SEQUENCE = {
    "d_model": WIDTH,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": INNER,
    "decoder_ffn_dim": INNER,
}
_PAIRS = {**IDS, "decoder_input_ids": IDS["input_ids"][:, :TARGETS]}

TRANSLATORS = {
    "bart": Family(
        hf.BartForConditionalGeneration,
        hf.BartConfig(**_SEQUENCE, vocab_size=WORDS),
        _PAIRS,
    ),
    "t5": Family(
        hf.T5ForConditionalGeneration,
        hf.T5Config(
            d_model=WIDTH, d_kv=16, d_ff=INNER, num_layers=LAYERS, num_heads=4, vocab_size=WORDS
        ),
        _PAIRS,
    ),
    "whisper": Family(
        hf.WhisperForConditionalGeneration,
        hf.WhisperConfig(
            **_SEQUENCE,
            vocab_size=WORDS,
            num_mel_bins=16,
            max_source_positions=32,
            max_target_positions=32,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=3,
        ),
        {
            "input_features": torch.zeros(BATCH, 16, 64),
            "decoder_input_ids": _PAIRS["decoder_input_ids"],
        },
    ),
}
