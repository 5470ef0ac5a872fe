"""The Siamese network: shared-weight twins over one backbone.

First version: both twins answer with their global pose. The relative pose unit and the metric
feature head attach to `SiameseNetwork` by name; they are None until they exist.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rgsiam_ros.relocalizer import ROTATION_OUTPUT, TRANSLATION_OUTPUT
from rgsiam_training.backbones import create_backbone, leading_stages
from rgsiam_training.config import NetworkConfig

OUTPUT_NAMES = (TRANSLATION_OUTPUT, ROTATION_OUTPUT)


@dataclass(frozen=True)
class TwinOutput:
    """What one twin says about its images."""

    feature_BF: Tensor
    translation_B3: Tensor
    """Normalised: metres are ``origin_m + scale_m * translation``. Of the likeliest anchor."""
    quaternion_wxyz_B4: Tensor
    """Unit length."""
    anchor_logits_BK: Tensor
    """How likely each anchor is the nearest, before the softmax."""
    offset_BK3: Tensor
    """Normalised translation relative to each anchor."""


class FeatureExtractor(nn.Module):
    """Backbone and neck: ``(B, 3, H, W)`` normalised images to ``(B, F)`` features.

    The last feature map is reduced in channels and flattened, not pooled: where in the picture a
    thing appears is what tells neighbouring poses apart.
    """

    def __init__(self, config: NetworkConfig, input_height: int, input_width: int) -> None:
        super().__init__()
        self.backbone = create_backbone(config.backbone, config.pretrained)
        with torch.no_grad():
            probe = self.backbone.eval()(torch.zeros(1, 3, input_height, input_width))[-1]
        self._frozen = leading_stages(self.backbone, config.frozen_stages)
        for stage in self._frozen:
            stage.requires_grad_(False)
        _, channels, height, width = probe.shape
        self.neck = nn.Sequential(
            nn.Conv2d(channels, config.neck_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(config.neck_channels),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(config.neck_channels * height * width, config.feature_size),
            nn.ReLU(inplace=True),
        )

        self.train()

    def train(self, mode: bool = True) -> FeatureExtractor:
        """As usual, but frozen stages keep their batch statistics too."""
        super().train(mode)
        for stage in self._frozen:
            stage.eval()
        return self

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """Features of a batch of images."""
        return self.neck(self.backbone(image_B3HW)[-1])


class GlobalPoseUnit(nn.Module):
    """``(B, F)`` features to a global pose.

    On a long route plain regression of coordinates learns slowly, so the unit first classifies which
    of K anchors (places spread over the map, normalised ``(K, 3)``) is the nearest, and then regresses
    the offset from it. Rotation is a unit quaternion wxyz.
    """

    def __init__(self, config: NetworkConfig, anchors_K3: Tensor) -> None:
        super().__init__()
        self.register_buffer("anchors_K3", anchors_K3.clone())
        self.dropout = nn.Dropout(config.dropout)
        self.anchor = nn.Linear(config.feature_size, len(anchors_K3))
        self.offset = nn.Linear(config.feature_size, 3 * len(anchors_K3))
        self.rotation = nn.Linear(config.feature_size, 4)
        with torch.no_grad():
            self.rotation.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))

    def forward(self, feature_BF: Tensor) -> TwinOutput:
        """Global poses."""
        feature = self.dropout(feature_BF)
        logits = self.anchor(feature)
        offset = self.offset(feature).reshape(-1, len(self.anchors_K3), 3)
        likeliest = logits.argmax(dim=1)
        index = likeliest.reshape(-1, 1, 1).expand(-1, 1, 3)
        translation = self.anchors_K3[likeliest] + offset.gather(1, index)[:, 0]
        quaternion_wxyz = F.normalize(self.rotation(feature), dim=1)
        return TwinOutput(feature_BF, translation, quaternion_wxyz, logits, offset)


class SiameseNetwork(nn.Module):
    """Both twins and their heads. Twins share every weight: they are one network called on pairs."""

    def __init__(
        self,
        config: NetworkConfig,
        input_height: int,
        input_width: int,
        anchors_K3: Tensor,
        *,
        relative_unit: nn.Module | None = None,
        metric_head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.extractor = FeatureExtractor(config, input_height, input_width)
        self.global_unit = GlobalPoseUnit(config, anchors_K3)
        self.relative_unit = relative_unit
        self.metric_head = metric_head

    def twin(self, image_B3HW: Tensor) -> TwinOutput:
        """One twin's answer."""
        return self.global_unit(self.extractor(image_B3HW))

    def forward(self, first_B3HW: Tensor, second_B3HW: Tensor) -> tuple[TwinOutput, TwinOutput]:
        """Both twins over a batch of pairs, in one pass through the shared weights."""
        both = self.twin(torch.cat([first_B3HW, second_B3HW]))
        parts = [getattr(both, field.name).chunk(2) for field in fields(both)]
        first, second = zip(*parts, strict=True)
        return TwinOutput(*first), TwinOutput(*second)


class AbsoluteBranch(nn.Module):
    """What `absolute.onnx` holds: one twin's image to pose, as plain tensors."""

    def __init__(self, network: SiameseNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised translation ``(B, 3)`` and unit quaternion wxyz ``(B, 4)``."""
        output = self.network.twin(image_B3HW)
        return output.translation_B3, output.quaternion_wxyz_B4
