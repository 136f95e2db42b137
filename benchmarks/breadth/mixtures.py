"""Text decoders in which a router sends each token to some of the experts."""

import transformers as hf

from .family import GROUPED, IDS, INNER, TEXT, Family

_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

MIXTURES = {
    "deepseek_v3": Family(
        hf.DeepseekV3ForCausalLM,
        hf.DeepseekV3Config(
            **TEXT,
            num_key_value_heads=4,
            first_k_dense_replace=1,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_group=2,
            topk_group=1,
            moe_intermediate_size=32,
            kv_lora_rank=16,
            q_lora_rank=16,
            qk_rope_head_dim=8,
            qk_nope_head_dim=16,
            v_head_dim=16,
        ),
        IDS,
    ),
    "gpt_oss": Family(
        hf.GptOssForCausalLM,
        hf.GptOssConfig(
            **GROUPED,
            head_dim=16,
            num_local_experts=4,
            num_experts_per_tok=2,
            sliding_window=8,
        ),
        IDS,
    ),
    "jamba": Family(
        hf.JambaForCausalLM,
        hf.JambaConfig(
            **GROUPED,
            num_experts=4,
            attn_layer_period=2,
            attn_layer_offset=1,
            expert_layer_period=2,
            expert_layer_offset=1,
            use_mamba_kernels=False,
            mamba_dt_rank=8,
        ),
        IDS,
    ),
    "llama4": Family(
        hf.Llama4ForCausalLM,
        hf.Llama4TextConfig(
            **GROUPED, head_dim=16, num_local_experts=4, intermediate_size_mlp=INNER
        ),
        IDS,
    ),
    "mixtral": Family(
        hf.MixtralForCausalLM,
        hf.MixtralConfig(**GROUPED, num_local_experts=4, num_experts_per_tok=2),
        IDS,
    ),
    "olmoe": Family(
        hf.OlmoeForCausalLM,
        hf.OlmoeConfig(**GROUPED, num_experts=4, num_experts_per_tok=2),
        IDS,
    ),
    "qwen2_moe": Family(
        hf.Qwen2MoeForCausalLM,
        hf.Qwen2MoeConfig(**GROUPED, **_EXPERTS, shared_expert_intermediate_size=64),
        IDS,
    ),
    "qwen3_moe": Family(
        hf.Qwen3MoeForCausalLM,
        hf.Qwen3MoeConfig(**GROUPED, **_EXPERTS, head_dim=16),
        IDS,
    ),
    "qwen3_next": Family(
        hf.Qwen3NextForCausalLM,
        hf.Qwen3NextConfig(
            **GROUPED,
            **_EXPERTS,
            head_dim=16,
            shared_expert_intermediate_size=32,
            layer_types=["linear_attention", "full_attention"],
            linear_num_value_heads=4,
            linear_num_key_heads=2,
            linear_key_head_dim=16,
            linear_value_head_dim=16,
        ),
        IDS,
    ),
}
