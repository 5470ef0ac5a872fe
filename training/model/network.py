"""The Siamese network: twins with shared weights over one backbone, and their heads.

Each twin predicts the global pose of its image, the covariance of that pose and a metric feature. The relative
pose head takes the features of both twins.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rgsiam_ros.bundle import network_io
from rgsiam_training.config import NetworkConfig
from rgsiam_training.model.backbones import create_backbone, leading_stages
from rgsiam_training.model.necks import HOURGLASS_STRIDE, create_neck
from rgsiam_training.model.poses import POSE_SIZE, PRECISION_ENTRIES, Poses
from rgsiam_training.model.rotation_outputs import IDENTITY, unit_quaternion_wxyz

INITIAL_LOG_PRECISION = 3.0
"""Initial logarithms of the diagonal of `rgsiam_training.losses.uncertainty.whitening_matrix`, so of 1 / sigma."""


@dataclass(frozen=True)
class TwinOutput:
    """The outputs of one twin for a batch of images."""

    translation_B3: Tensor
    """Normalised translation: the most likely anchor plus its offset. Metres are ``origin_m + scale_m * translation``."""
    quaternion_wxyz_B4: Tensor
    """Rotation, unit length."""
    anchor_logits_BK: Tensor
    """Logits of the probability that each anchor is the nearest one."""
    offset_BK3: Tensor
    """Predicted translation relative to each anchor, normalised units."""
    precision_factor_B21: Tensor
    """21 numbers that represent a factor of the inverse covariance, see `rgsiam_training.losses.uncertainty.whitening_matrix`."""
    metric_feature_BD: Tensor
    """Metric feature, unit length."""
    feature_BF: Tensor
    """Feature vector, the input of the heads."""

    @property
    def poses(self) -> Poses:
        """The global poses."""
        return Poses(self.translation_B3, self.quaternion_wxyz_B4)


class FeatureExtractor(nn.Module):
    """Computes features ``(B, F)`` from normalised images ``(B, 3, H, W)``: backbone and neck."""

    def __init__(self, config: NetworkConfig, input_height: int, input_width: int) -> None:
        super().__init__()
        self.backbone = create_backbone(
            config.backbone,
            config.pretrained,
            HOURGLASS_STRIDE if config.neck == "hourglass" else None,
        )
        with torch.no_grad():
            probe = self.backbone.eval()(torch.zeros(1, 3, input_height, input_width))
        frozen = config.frozen_stages if config.pretrained else 0  # random weights must be trained
        self._frozen = leading_stages(self.backbone, frozen)
        for stage in self._frozen:
            stage.requires_grad_(False)
        self.neck = create_neck(config, [feature_map.shape[1:] for feature_map in probe])
        self.train()

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Set the mode. Frozen stages stay in evaluation mode, so that they keep their batch statistics."""
        super().train(mode)
        for stage in self._frozen:
            stage.eval()
        return self

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """Return features ``(B, F)``."""
        return self.neck(self.backbone(image_B3HW))


class GlobalPoseUnit(nn.Module):
    """Predicts a global pose from features ``(B, F)``.

    Plain regression of coordinates learns slowly on a long route. So the unit classifies which of K anchors
    is the nearest and regresses the offset from it. The anchors are positions spread over the map,
    normalised ``(K, 3)``. `NetworkConfig.rotation` selects the rotation parameters that are regressed.
    """

    anchors_K3: Tensor

    def __init__(self, config: NetworkConfig, anchors_K3: Tensor) -> None:
        super().__init__()
        self.register_buffer("anchors_K3", anchors_K3.clone())
        self.dropout = nn.Dropout(config.dropout)
        self.anchor = nn.Linear(config.feature_size, len(anchors_K3))
        self.offset = nn.Linear(config.feature_size, 3 * len(anchors_K3))
        self.representation = config.rotation
        identity = torch.tensor(IDENTITY[config.rotation])
        self.rotation = nn.Linear(config.feature_size, len(identity))
        with torch.no_grad():
            self.rotation.bias.copy_(identity)

    def forward(self, feature_BF: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the normalised translation ``(B, 3)``, unit quaternion wxyz ``(B, 4)``, and the anchors'
        logits ``(B, K)`` and offsets ``(B, K, 3)``.
        """
        feature = self.dropout(feature_BF)
        logits = self.anchor(feature)
        offset = self.offset(feature).reshape(-1, len(self.anchors_K3), 3)
        likeliest = logits.argmax(dim=1)
        index = likeliest.reshape(-1, 1, 1).expand(-1, 1, 3)
        translation = self.anchors_K3[likeliest] + offset.gather(1, index)[:, 0]
        quaternion_wxyz = unit_quaternion_wxyz(self.rotation(feature), self.representation)
        return translation, quaternion_wxyz, logits, offset


class RelativePoseHead(nn.Module):
    """Our reading of the relative pose branch of the paper: regresses the relative pose of two images.

    ``f_1, f_2`` are the feature vectors of the twins. The head computes
    ``(t, q) = A max(0, B [f_1; f_2] + b) + a`` with learned ``A, B, a, b``, and returns ``(t, q / ||q||)`` as
    ``T_12 = T_1^-1 T_2``. Through this head the features learn how poses differ. A bundle does not hold it.
    Laskar et al. 2017 (arXiv 1707.09733) and others regress relative poses in this way too.
    """

    def __init__(self, feature_size: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(2 * feature_size, feature_size), nn.ReLU())
        self.pose = nn.Linear(feature_size, 7)
        with torch.no_grad():
            self.pose.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]))

    def forward(self, first_BF: Tensor, second_BF: Tensor) -> Poses:
        """Return the poses ``T_first_second``, normalised units."""
        raw = self.pose(self.hidden(torch.cat([first_BF, second_BF], dim=1)))
        return Poses(raw[:, :3], F.normalize(raw[:, 3:], dim=1))


class SiameseNetwork(nn.Module):
    """The twins and their heads. The twins share all weights, so one network is called on both images."""

    def __init__(
        self,
        config: NetworkConfig,
        input_height: int,
        input_width: int,
        anchors_K3: Tensor,
        *,
        with_relative_head: bool = True,
    ) -> None:
        """anchors_K3: normalised units. with_relative_head: whether the network gets this head."""
        super().__init__()
        self.extractor = FeatureExtractor(config, input_height, input_width)
        self.global_unit = GlobalPoseUnit(config, anchors_K3)
        self.uncertainty_head = nn.Linear(config.feature_size, PRECISION_ENTRIES)
        self.metric_head = nn.Linear(config.feature_size, config.metric_size)
        self.relative_head = RelativePoseHead(config.feature_size) if with_relative_head else None
        nn.init.zeros_(self.uncertainty_head.weight)
        with torch.no_grad():
            self.uncertainty_head.bias.zero_()[:POSE_SIZE] = INITIAL_LOG_PRECISION

    def forward(self, image_B3HW: Tensor) -> TwinOutput:
        """Return the outputs for normalised images ``(B, 3, H, W)``, of one twin or of both twins."""
        feature = self.extractor(image_B3HW).float()
        if torch.is_autocast_enabled(feature.device.type):  # poses need float32 precision
            with torch.autocast(feature.device.type, enabled=False):
                return self._heads(feature)
        return self._heads(feature)

    def _heads(self, feature: Tensor) -> TwinOutput:
        translation, quaternion_wxyz, logits, offset = self.global_unit(feature)
        return TwinOutput(
            translation_B3=translation,
            quaternion_wxyz_B4=quaternion_wxyz,
            anchor_logits_BK=logits,
            offset_BK3=offset,
            precision_factor_B21=self.uncertainty_head(feature.detach()),
            metric_feature_BD=F.normalize(self.metric_head(feature), dim=1),
            feature_BF=feature,
        )


class AbsoluteBranch(nn.Module):
    """The network of `absolute.onnx`: computes poses and features of images, as a tuple of tensors."""

    def __init__(self, network: SiameseNetwork, output_names: tuple[str, ...]) -> None:
        """output_names: names from `rgsiam_ros.bundle.network_io`, in the order of the outputs."""
        super().__init__()
        self.network = network
        self.output_names = output_names

    def forward(self, image_B3HW: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in the order of `output_names`, see `rgsiam_ros.bundle.network_io`."""
        twin = self.network(image_B3HW)
        outputs = {
            network_io.TRANSLATION: twin.translation_B3,
            network_io.ROTATION: twin.quaternion_wxyz_B4,
            network_io.PRECISION_FACTOR: twin.precision_factor_B21,
            network_io.METRIC_FEATURE: twin.metric_feature_BD,
        }
        return tuple(outputs[name] for name in self.output_names)
