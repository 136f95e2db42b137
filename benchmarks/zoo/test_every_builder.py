"""Every builder of torchvision makes a model whose operators are all known, in both phases."""

from collections.abc import Iterator

import pytest
import torch
from torchvision.models import (
    detection,
    get_model,
    get_model_weights,
    list_models,
    optical_flow,
    quantization,
)

import pytest_nnscale

from .test_every_published_figure import OPTIONS, on_meta, sizes

pytestmark = pytest.mark.slow
METRICS = ("params", "flops")

DETECTORS = list_models(detection)
QUANTIZED = list_models(quantization)
OTHERS = [name for name in list_models() if name not in DETECTORS]
# Detectors resize their images, but for these.
OF_ONE_SIZE = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}


def assert_known(found):
    """Nothing in it is UNKNOWN, and it does work."""
    assert found.uncounted == ()
    assert found.flops > 0
    assert found.params > 0


@pytest.mark.parametrize("phase", ["inference", "training"])
@pytest.mark.parametrize("name", OTHERS)
def test_on_shapes(name, phase):
    """Classifiers, segmentation, video and optical flow, and what quantisation starts from."""
    weights = next(iter(get_model_weights(name)))
    options = dict(OPTIONS.get(name, {}))
    shapes = sizes(name, weights)
    if name.startswith("vit_"):
        options["image_size"] = shapes[0][-1]
    if name in list_models(optical_flow):
        shapes = tuple((1, 3, 128, 128) for _ in shapes)
    if phase == "training":  # batch norms need two numbers of each channel
        shapes = tuple((2, *shape[1:]) for shape in shapes)
    with on_meta():
        model = get_model(name, weights=None, **options).train(phase == "training")
        inputs = tuple(torch.empty(shape) for shape in shapes)
    assert_known(pytest_nnscale.profile(model, inputs, phase=phase, metrics=METRICS))


@pytest.mark.parametrize("name", DETECTORS)
def test_detector(name):
    """On a small image with numbers in it: which boxes go on depends on their scores."""
    size = OF_ONE_SIZE.get(name, 128)
    options = {} if name in OF_ONE_SIZE else {"min_size": size, "max_size": size}
    model = get_model(name, weights=None, weights_backbone=None, **options).eval()
    assert_known(pytest_nnscale.profile(model, ([torch.rand(3, size, size)],), metrics=METRICS))


@pytest.mark.parametrize("name", DETECTORS)
def test_training_a_detector(name):
    """Its losses are what it returns."""
    size = OF_ONE_SIZE.get(name, 128)
    options = {} if name in OF_ONE_SIZE else {"min_size": size, "max_size": size}
    model = get_model(name, weights=None, weights_backbone=None, **options).train()
    target = {
        "boxes": torch.tensor([[10.0, 20.0, 90.0, 100.0]]),
        "labels": torch.tensor([1]),
        "masks": torch.ones(1, size, size, dtype=torch.uint8),
        "keypoints": torch.full((1, 17, 3), 50.0),
    }
    batch = [torch.rand(3, size, size), torch.rand(3, size, size)], [target, target]
    assert_known(pytest_nnscale.profile(model, batch, phase="training", metrics=METRICS))


@pytest.fixture
def engine(name) -> Iterator[None]:
    """The engine that a builder asks for, and the one as it was afterwards."""
    before = torch.backends.quantized.engine
    wanted = next(iter(get_model_weights(name))).meta["backend"]
    if wanted not in torch.backends.quantized.supported_engines:
        pytest.skip(f"this torch has no {wanted}")
    yield
    torch.backends.quantized.engine = before


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("name", QUANTIZED)
def test_quantised(name):
    """Eight-bit kernels, with packed weights, do the work of those that they were made from."""
    options = OPTIONS.get(name, {})
    model = get_model(name, weights=None, quantize=True, **options).eval()
    size = next(iter(get_model_weights(name))).transforms().crop_size[0]
    found = pytest_nnscale.profile(model, (torch.rand(1, 3, size, size),), metrics=METRICS)
    assert_known(found)
    with on_meta():
        plain = get_model(name, weights=None, quantize=False, **options).eval()
        image = torch.empty(1, 3, size, size)
    assert found.flops == pytest_nnscale.profile(plain, (image,), metrics=METRICS).flops
