"""Text encoders."""

import torch
import transformers as hf

from .family import BATCH, IDS, INNER, LAYERS, LENGTH, TEXT, WIDTH, WORDS, Family

ENCODERS = {
    "albert": Family(hf.AlbertModel, hf.AlbertConfig(**TEXT, embedding_size=32), IDS),
    "bert": Family(hf.BertModel, hf.BertConfig(**TEXT), IDS),
    "big_bird": Family(
        hf.BigBirdModel,
        hf.BigBirdConfig(**TEXT, attention_type="block_sparse", block_size=4, num_random_blocks=1),
        {"input_ids": torch.arange(10, 74)[None]},
    ),
    "deberta": Family(
        hf.DebertaModel,
        hf.DebertaConfig(**TEXT, relative_attention=True, pos_att_type=["c2p", "p2c"]),
        IDS,
    ),
    "deberta_v2": Family(
        hf.DebertaV2Model,
        hf.DebertaV2Config(**TEXT, relative_attention=True, pos_att_type=["c2p", "p2c"]),
        IDS,
    ),
    "distilbert": Family(
        hf.DistilBertModel,
        hf.DistilBertConfig(
            dim=WIDTH, n_layers=LAYERS, n_heads=4, hidden_dim=INNER, vocab_size=WORDS
        ),
        IDS,
    ),
    "fnet": Family(
        hf.FNetModel,
        hf.FNetConfig(
            hidden_size=WIDTH, num_hidden_layers=LAYERS, intermediate_size=INNER, vocab_size=WORDS
        ),
        IDS,
    ),
    "funnel": Family(
        hf.FunnelModel,
        hf.FunnelConfig(
            vocab_size=WORDS, block_sizes=[1, 1], d_model=WIDTH, n_head=4, d_head=16, d_inner=INNER
        ),
        IDS,
    ),
    "layoutlm": Family(
        hf.LayoutLMModel,
        hf.LayoutLMConfig(**TEXT),
        {**IDS, "bbox": torch.zeros(BATCH, LENGTH, 4, dtype=torch.long)},
    ),
    "longformer": Family(hf.LongformerModel, hf.LongformerConfig(**TEXT, attention_window=8), IDS),
    "modernbert": Family(
        hf.ModernBertModel,
        hf.ModernBertConfig(**TEXT, pad_token_id=0, cls_token_id=1, sep_token_id=2),
        IDS,
    ),
    "roberta": Family(hf.RobertaModel, hf.RobertaConfig(**TEXT), IDS),
    "xlnet": Family(
        hf.XLNetModel,
        hf.XLNetConfig(d_model=WIDTH, n_layer=LAYERS, n_head=4, d_inner=INNER, vocab_size=WORDS),
        IDS,
    ),
}
