"""What sees: images alone, and images beside text or other inputs."""

import torch
import transformers as hf

from .family import IDS, LAYERS, LENGTH, SIZES, TEXT, WIDTH, Family

_VISION = {**SIZES, "image_size": 32, "patch_size": 8}
_IMAGE = {"pixel_values": torch.linspace(0, 1, 3 * 32 * 32).view(1, 3, 32, 32)}

IMAGES = {
    "beit": Family(hf.BeitModel, hf.BeitConfig(**_VISION, use_relative_position_bias=True), _IMAGE),
    "clip": Family(
        hf.CLIPModel,
        hf.CLIPConfig(text_config={**TEXT, "eos_token_id": 2}, vision_config=_VISION),
        {**IDS, **_IMAGE},
    ),
    "convnext": Family(
        hf.ConvNextModel,
        hf.ConvNextConfig(hidden_sizes=[16, 32], depths=[1, 1], num_stages=2),
        _IMAGE,
    ),
    "dinov2": Family(
        hf.Dinov2Model,
        hf.Dinov2Config(
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            image_size=32,
            patch_size=8,
        ),
        _IMAGE,
    ),
    "perceiver": Family(
        hf.PerceiverModel,
        hf.PerceiverConfig(
            num_latents=8,
            d_latents=WIDTH,
            d_model=WIDTH,
            num_blocks=1,
            num_self_attends_per_block=LAYERS,
            num_self_attention_heads=4,
            num_cross_attention_heads=4,
        ),
        {"inputs": torch.zeros(1, LENGTH, WIDTH)},
    ),
    "resnet": Family(
        hf.ResNetModel,
        hf.ResNetConfig(embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1]),
        _IMAGE,
    ),
    "segformer": Family(
        hf.SegformerModel,
        hf.SegformerConfig(
            num_encoder_blocks=2,
            depths=[1, 1],
            hidden_sizes=[16, 32],
            sr_ratios=[4, 2],
            patch_sizes=[7, 3],
            strides=[4, 2],
            num_attention_heads=[1, 2],
            mlp_ratios=[2, 2],
        ),
        _IMAGE,
    ),
    "siglip": Family(
        hf.SiglipModel,
        hf.SiglipConfig(
            text_config={**TEXT, "max_position_embeddings": LENGTH}, vision_config=_VISION
        ),
        {**IDS, **_IMAGE},
    ),
    "swin": Family(
        hf.SwinModel,
        hf.SwinConfig(
            image_size=32,
            patch_size=2,
            embed_dim=16,
            depths=[2, 2],
            num_heads=[2, 4],
            window_size=4,
        ),
        _IMAGE,
    ),
    "swinv2": Family(
        hf.Swinv2Model,
        hf.Swinv2Config(
            image_size=32,
            patch_size=2,
            embed_dim=16,
            depths=[2, 2],
            num_heads=[2, 4],
            window_size=4,
        ),
        _IMAGE,
    ),
    "vit": Family(hf.ViTModel, hf.ViTConfig(**_VISION), _IMAGE),
}
