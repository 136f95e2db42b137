"""A family of transformers in small: two layers, 64 wide, random weights, nothing downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf

BATCH, LENGTH, TARGETS = 2, 16, 7
WIDTH, LAYERS, INNER, WORDS = 64, 2, 128, 100

SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": INNER,
}
TEXT = {**SIZES, "vocab_size": WORDS}
# Two query heads share keys and values.
GROUPED = {**TEXT, "num_key_value_heads": 2, "pad_token_id": 0}

IDS = {"input_ids": torch.arange(BATCH * LENGTH).view(BATCH, LENGTH) + 10}


@dataclass(frozen=True, slots=True)
class Family:
    """A model class, a small configuration of it, and what it is called with, by name."""

    model: type[hf.PreTrainedModel]
    config: hf.PreTrainedConfig
    inputs: Mapping[str, torch.Tensor]

    @property
    def attentions(self) -> tuple[str, ...]:
        """The attention implementations of torch that the family has."""
        return ("eager", "sdpa") if self.model._supports_sdpa else ("eager",)

    def build(self, **implementations: Any) -> hf.PreTrainedModel:
        """Make the model, ready for inference."""
        return self.model._from_config(deepcopy(self.config), **implementations).eval()
