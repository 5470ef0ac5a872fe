"""The Siamese network: shared-weight twins over one backbone.

First version: both twins answer with their global pose. The relative pose unit and the metric
feature head attach to `SiameseNetwork` by name; they are None until they exist.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rgsiam_ros.relocalizer import ROTATION_OUTPUT, TRANSLATION_OUTPUT
from rgsiam_training.backbones import create_backbone
from rgsiam_training.config import NetworkConfig

OUTPUT_NAMES = (TRANSLATION_OUTPUT, ROTATION_OUTPUT)


@dataclass(frozen=True)
class TwinOutput:
    """What one twin says about its images."""

    feature_BF: Tensor
    translation_B3: Tensor
    """Normalised: metres are ``origin_m + scale_m * translation``."""
    quaternion_wxyz_B4: Tensor
    """Unit length."""


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
        self.backbone.train()
        _, channels, height, width = probe.shape
        self.neck = nn.Sequential(
            nn.Conv2d(channels, config.neck_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(config.neck_channels),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(config.neck_channels * height * width, config.feature_size),
            nn.ReLU(inplace=True),
        )

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """Features of a batch of images."""
        return self.neck(self.backbone(image_B3HW)[-1])


class GlobalPoseUnit(nn.Module):
    """``(B, F)`` features to a normalised translation ``(B, 3)`` and a unit quaternion wxyz."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.translation = nn.Linear(config.feature_size, 3)
        self.rotation = nn.Linear(config.feature_size, 4)
        with torch.no_grad():
            self.rotation.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))

    def forward(self, feature_BF: Tensor) -> tuple[Tensor, Tensor]:
        """Global poses."""
        feature = self.dropout(feature_BF)
        return self.translation(feature), F.normalize(self.rotation(feature), dim=1)


class SiameseNetwork(nn.Module):
    """Both twins and their heads. Twins share every weight: they are one network called on pairs."""

    def __init__(
        self,
        config: NetworkConfig,
        input_height: int,
        input_width: int,
        *,
        relative_unit: nn.Module | None = None,
        metric_head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.extractor = FeatureExtractor(config, input_height, input_width)
        self.global_unit = GlobalPoseUnit(config)
        self.relative_unit = relative_unit
        self.metric_head = metric_head

    def twin(self, image_B3HW: Tensor) -> TwinOutput:
        """One twin's answer."""
        feature = self.extractor(image_B3HW)
        translation, quaternion_wxyz = self.global_unit(feature)
        return TwinOutput(feature, translation, quaternion_wxyz)

    def forward(self, first_B3HW: Tensor, second_B3HW: Tensor) -> tuple[TwinOutput, TwinOutput]:
        """Both twins over a batch of pairs, in one pass through the shared weights."""
        both = self.twin(torch.cat([first_B3HW, second_B3HW]))
        batch = len(first_B3HW)
        outputs = (both.feature_BF, both.translation_B3, both.quaternion_wxyz_B4)
        return (
            TwinOutput(*(output[:batch] for output in outputs)),
            TwinOutput(*(output[batch:] for output in outputs)),
        )


class AbsoluteBranch(nn.Module):
    """What `absolute.onnx` holds: one twin's image to pose, as plain tensors."""

    def __init__(self, network: SiameseNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised translation ``(B, 3)`` and unit quaternion wxyz ``(B, 4)``."""
        output = self.network.twin(image_B3HW)
        return output.translation_B3, output.quaternion_wxyz_B4
