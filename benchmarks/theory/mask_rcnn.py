"""Mask R-CNN with a ResNet-50 and a feature pyramid: torchvision's maskrcnn_resnet50_fpn_v2."""

import torch
from torch import Tensor, nn
from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

from .published import Published

PROPOSALS = 1000  # that the first stage hands on at most (rpn_post_nms_top_n_test)
DETECTIONS = 100  # that the second keeps at most (box_detections_per_img)
SIDE = 800  # pixels of the noise that torchvision measures on: detection_models_input_dims


def build() -> nn.Module:
    """The detector with weights drawn on the present device."""
    return maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None).eval()


class Networks(nn.Module):
    """All networks of the detector, without the selection of boxes between them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.proposals = model.rpn.head
        self.boxes = nn.Sequential(model.roi_heads.box_head, Both(model.roi_heads.box_predictor))
        self.masks = nn.Sequential(model.roi_heads.mask_head, model.roi_heads.mask_predictor)

    def forward(self, image: Tensor, boxes: Tensor, masks: Tensor) -> tuple[object, ...]:
        levels = self.backbone(image)
        return self.proposals([*levels.values()]), self.boxes(boxes), self.masks(masks)


class Both(nn.Module):
    """Scores and boxes of a predictor side by side, so that it can end a sequence."""

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat(self.predictor(features), dim=1)


def workload() -> tuple[Networks, tuple[Tensor, ...]]:
    """All networks and the most that each is handed for an 800 x 800 image, without values."""
    with torch.device("meta"):
        image = torch.empty(1, 3, SIDE, SIDE)
        boxes = torch.empty(PROPOSALS, 256, 7, 7)
        masks = torch.empty(DETECTIONS, 256, 14, 14)
        return Networks(build()), (image, boxes, masks)


PUBLISHED = (
    Published(
        "Mask R-CNN R50-FPN v2, 800 x 800",
        workload,
        params="46,359,409",
        flops="667.154 G (333.577 GMAC)",
        source="torchvision MaskRCNN_ResNet50_FPN_V2_Weights",
    ),
)
