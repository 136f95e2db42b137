"""wav2vec 2.0 base against its paper's parameters and a published count of FLOPs.

The paper (arXiv:2006.11477, section 4.2) has 95M parameters. The Open Model Zoo
(github.com/openvinotoolkit/open_model_zoo, wav2vec2-base) has 94.3965M with a head of 32 letters, and
26.843 GFLOPs on 30,480 samples (model.yml) at two FLOP a multiply-accumulate, activations and
norms included.
"""

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel

import pytest_nnscale

from .wav2vec2 import (
    CHANNELS,
    GROUPS,
    INNER,
    KERNELS,
    LAYERS,
    LETTERS,
    POSITIONS,
    SAMPLES,
    STRIDES,
    WIDTH,
    workload,
)


def frames_after(samples: int) -> list[int]:
    """Frames that leave each convolution: a kernel that hangs over the end gives none."""
    lengths = []
    for kernel, stride in zip(KERNELS, STRIDES, strict=True):
        samples = (samples - kernel) // stride + 1
        lengths.append(samples)
    return lengths


def closed_form_macs(samples: int) -> int:
    """Convolutions, projection, the one for positions, 12 layers, and the head."""
    lengths = frames_after(samples)
    frames = lengths[-1]
    channels = (1, *[CHANNELS] * 6)
    encoder = sum(
        length * before * CHANNELS * kernel
        for length, before, kernel in zip(lengths, channels, KERNELS, strict=True)
    )
    positions = (frames + 1) * WIDTH * (WIDTH // GROUPS) * POSITIONS  # one frame is cut off again
    layer = frames * (4 * WIDTH**2 + 2 * WIDTH * INNER) + 2 * frames**2 * WIDTH
    around = frames * WIDTH * (CHANNELS + LETTERS)
    return encoder + positions + LAYERS * layer + around


def closed_form_params() -> int:
    """The parameters without the head."""
    encoder = CHANNELS * KERNELS[0] + CHANNELS**2 * sum(KERNELS[1:]) + 2 * CHANNELS
    projection = 2 * CHANNELS + CHANNELS * WIDTH + WIDTH
    # Weight norm keeps a length for each place of the kernel.
    positions = WIDTH * (WIDTH // GROUPS) * POSITIONS + POSITIONS + WIDTH
    attention = 4 * (WIDTH**2 + WIDTH)
    feed_forward = 2 * WIDTH * INNER + INNER + WIDTH
    layers = LAYERS * (attention + feed_forward + 4 * WIDTH)
    return encoder + projection + WIDTH + positions + 2 * WIDTH + layers


@pytest.mark.max_params("95M")
def test_parameters(nnscale):
    """Parameters are the paper's 95M at most, exactly those of transformers' Wav2Vec2Model."""
    model, _ = workload(letters=0)
    profile = nnscale.profile(model)
    assert profile.params == closed_form_params() == 94_371_712


@pytest.mark.max_flops("26.843 GFLOP")
def test_flops(nnscale):
    """FLOPs are the closed form, and what the published figure has on top is under 0.2 %."""
    model, args = workload()
    letters = nnscale(model, *args)
    assert letters.shape == (1, 95, LETTERS)
    profile = pytest_nnscale.profile(model, args=args)
    assert profile.uncounted == ()
    assert profile.macs == closed_form_macs(SAMPLES)
    assert 0.998 * 26.843e9 < profile.flops < 26.843e9
    assert round(profile.params / 1e6, 1) == 94.4


def test_training_flops():
    """A backward pass costs two forward ones, grouped convolution included, less the samples' own.

    No gradient is asked of the samples, so the first convolution has but one product more. Scores are
    kept, as no fused kernel does.
    """
    model, args = workload()
    first = frames_after(SAMPLES)[0] * CHANNELS * KERNELS[0]
    with sdpa_kernel(SDPBackend.MATH):
        profile = pytest_nnscale.profile(model, args=args, phase="training")
    assert profile.macs == 3 * closed_form_macs(SAMPLES) - first
