"""Text decoders that carry a state from token to token."""

import transformers as hf

from .family import GROUPED, IDS, LAYERS, WIDTH, WORDS, Family

_STATES = {"num_hidden_layers": LAYERS, "hidden_size": WIDTH, "vocab_size": WORDS, "state_size": 8}

RECURRENCES = {
    "mamba": Family(hf.MambaForCausalLM, hf.MambaConfig(**_STATES), IDS),
    "mamba2": Family(
        hf.Mamba2ForCausalLM,
        hf.Mamba2Config(**_STATES, num_heads=8, head_dim=16, n_groups=1, chunk_size=8),
        IDS,
    ),
    "recurrent_gemma": Family(
        hf.RecurrentGemmaForCausalLM,
        hf.RecurrentGemmaConfig(
            **{**GROUPED, "num_hidden_layers": 3, "num_key_value_heads": 1},
            lru_width=WIDTH,
            attention_window_size=8,
        ),
        IDS,
    ),
    "rwkv": Family(
        hf.RwkvForCausalLM,
        hf.RwkvConfig(
            hidden_size=WIDTH, num_hidden_layers=LAYERS, vocab_size=WORDS, context_length=64
        ),
        IDS,
    ),
}
