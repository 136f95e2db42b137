"""Losses, and their gradients."""

from __future__ import annotations

from typing import Any

import torch

from pytest_nnscale.counting.shape_rules.registry import Answer, rule
from pytest_nnscale.counting.shape_rules.strides import like, standing_for
from pytest_nnscale.counting.specs import Spec, spec


@rule(
    "aten::mse_loss",
    "aten::smooth_l1_loss",
    "aten::soft_margin_loss",
    "aten::binary_cross_entropy",
    device="cpu",
)
def _reduced_loss(output: Spec, target: Spec, *args: Any) -> Answer:
    # One number, in the storage that was made for the loss of each element.
    reduction = next((arg for arg in reversed(args) if type(arg) is int), 1)
    if reduction == 0 or output.dtype != target.dtype:
        return None
    room = torch.broadcast_shapes(output.size, target.size).numel()
    return [spec((), (), output.dtype, output.device, room=room)]


@rule("aten::binary_cross_entropy_backward", device="cpu")
def _cross_entropy_backward(_gradient: Spec, guess: Spec, *_: Any) -> Answer:
    return [
        spec(guess.size, torch.empty_like(standing_for(guess)).stride(), guess.dtype, guess.device)
    ]


@rule(
    "aten::mse_loss_backward",
    "aten::smooth_l1_loss_backward",
    "aten::huber_loss_backward",
    device="cpu",
)
def _loss_backward(_gradient: Spec, guess: Spec, *_: Any) -> Answer:
    return [like(guess, guess.size)]
