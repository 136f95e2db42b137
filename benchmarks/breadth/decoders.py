"""Text decoders whose layers are the same for every token."""

import transformers as hf

from .family import GROUPED, IDS, INNER, LAYERS, TEXT, WIDTH, WORDS, Family

DECODERS = {
    "bloom": Family(
        hf.BloomForCausalLM,
        hf.BloomConfig(hidden_size=WIDTH, n_layer=LAYERS, n_head=4, vocab_size=WORDS),
        IDS,
    ),
    "falcon": Family(
        hf.FalconForCausalLM,
        hf.FalconConfig(
            hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=4, vocab_size=WORDS
        ),
        IDS,
    ),
    "gemma": Family(hf.GemmaForCausalLM, hf.GemmaConfig(**GROUPED, head_dim=16), IDS),
    "gemma3": Family(
        hf.Gemma3ForCausalLM,
        hf.Gemma3TextConfig(**GROUPED, head_dim=16, sliding_window=8),
        IDS,
    ),
    "gpt2": Family(
        hf.GPT2LMHeadModel,
        hf.GPT2Config(n_embd=WIDTH, n_layer=LAYERS, n_head=4, n_positions=64, vocab_size=WORDS),
        IDS,
    ),
    "gpt_neox": Family(hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig(**TEXT), IDS),
    "llama": Family(hf.LlamaForCausalLM, hf.LlamaConfig(**GROUPED), IDS),
    "mistral": Family(hf.MistralForCausalLM, hf.MistralConfig(**GROUPED, sliding_window=8), IDS),
    "opt": Family(
        hf.OPTForCausalLM,
        hf.OPTConfig(
            hidden_size=WIDTH,
            word_embed_proj_dim=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            ffn_dim=INNER,
            vocab_size=WORDS,
        ),
        IDS,
    ),
    "phi": Family(hf.PhiForCausalLM, hf.PhiConfig(**TEXT), IDS),
    "phi3": Family(hf.Phi3ForCausalLM, hf.Phi3Config(**GROUPED), IDS),
    "qwen2": Family(hf.Qwen2ForCausalLM, hf.Qwen2Config(**GROUPED), IDS),
}
