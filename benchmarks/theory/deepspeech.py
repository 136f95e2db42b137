"""Deep Speech, as in its paper, and as Mozilla changed it.

Hannun et al., "Deep Speech: Scaling up end-to-end speech recognition" (arXiv:1412.5567), section 2:
three layers on each frame and its neighbours, a recurrent layer in both directions, a fifth on their
sum, 29 characters. Section 5.1 has 2048 units, and 80 filter banks with an energy term as input.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .published import Published

UNITS, CHARACTERS, CONTEXT = 2048, 29, 9
FEATURES = 80 + 1  # of one frame
COEFFICIENTS = 26  # of one frame, at Mozilla
FRAMES = 50


def clipped(states: Tensor) -> Tensor:
    """The activation of the paper: a ReLU that ends at 20."""
    return functional.hardtanh(states, 0.0, 20.0)


class DeepSpeech(nn.Module):
    """The paper's network: both directions read the third layer through the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear((2 * CONTEXT + 1) * FEATURES, UNITS)
        self.second = nn.Linear(UNITS, UNITS)
        self.third = nn.Linear(UNITS, UNITS)
        self.fourth = nn.Linear(UNITS, UNITS)
        self.forwards = nn.Linear(UNITS, UNITS, bias=False)
        self.backwards = nn.Linear(UNITS, UNITS, bias=False)
        self.fifth = nn.Linear(UNITS, UNITS)
        self.characters = nn.Linear(UNITS, CHARACTERS)

    def forward(self, frames: Tensor) -> Tensor:
        windows = functional.pad(frames, (0, 0, CONTEXT, CONTEXT)).unfold(1, 2 * CONTEXT + 1, 1)
        states = windows.flatten(2)
        for layer in (self.first, self.second, self.third):
            states = clipped(layer(states))
        inputs = self.fourth(states).unbind(1)
        there = self._recur(self.forwards, inputs)
        back = self._recur(self.backwards, inputs[::-1])[::-1]
        both = torch.stack([one + other for one, other in zip(there, back, strict=True)], dim=1)
        return self.characters(clipped(self.fifth(both)))

    @staticmethod
    def _recur(weights: nn.Linear, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        states = [clipped(inputs[0])]  # the state before the first frame is zero
        for step in inputs[1:]:
            states.append(clipped(step + weights(states[-1])))
        return states


class MozillaDeepSpeech(nn.Module):
    """Mozilla's 0.6 to 0.9: one LSTM forwards in place of the recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear((2 * CONTEXT + 1) * COEFFICIENTS, UNITS)
        self.second = nn.Linear(UNITS, UNITS)
        self.third = nn.Linear(UNITS, UNITS)
        self.recurrent = nn.LSTM(UNITS, UNITS, batch_first=True)
        self.fifth = nn.Linear(UNITS, UNITS)
        self.characters = nn.Linear(UNITS, CHARACTERS)

    def forward(self, windows: Tensor) -> Tensor:
        states = windows
        for layer in (self.first, self.second, self.third):
            states = clipped(layer(states))
        states, _ = self.recurrent(states)
        return self.characters(clipped(self.fifth(states)))


def workload(frames: int = FRAMES) -> tuple[nn.Module, tuple[Tensor]]:
    """The paper's network and half a second of features, without values."""
    with torch.device("meta"):
        return DeepSpeech().eval(), (torch.empty(1, frames, FEATURES),)


def mozilla_workload(frames: int = FRAMES) -> tuple[nn.Module, tuple[Tensor]]:
    """Mozilla's network and a second of coefficients with their context, without values."""
    with torch.device("meta"):
        windows = torch.empty(1, frames, (2 * CONTEXT + 1) * COEFFICIENTS)
        return MozillaDeepSpeech().eval(), (windows,)


PUBLISHED = (
    Published(
        "Deep Speech, a frame of 50",
        workload,
        params="-",
        flops="-",
        source="closed form of arXiv:1412.5567, section 2",
        per=FRAMES,
    ),
    Published(
        "Mozilla DeepSpeech 0.6.1, a frame",
        mozilla_workload,
        params="47.2M",
        flops="94.4 M (0.0472 GMAC)",
        source="Open Model Zoo, mozilla-deepspeech-0.6.1",
        per=FRAMES,
    ),
)
