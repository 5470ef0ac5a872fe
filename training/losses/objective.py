"""The training objective: the weighted sum of all enabled loss terms over one batch of pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from rgsiam_training.config import LossConfig
from rgsiam_training.losses.global_pose import GlobalPoseTerm
from rgsiam_training.losses.mapnet import MapNetRelativeTerm
from rgsiam_training.losses.metric_distance import AdaptiveMetricTerm
from rgsiam_training.losses.relative_pose import ConsistencyTerm, RelativePoseTerm
from rgsiam_training.losses.reprojection import ReprojectionTerm
from rgsiam_training.losses.uncertainty import UncertaintyTerm
from rgsiam_training.losses.weighting import LearnedWeighting
from rgsiam_training.model.network import SiameseNetwork, TwinOutput
from rgsiam_training.model.poses import PairTruth, Poses

INITIAL_S_ROTATION = -3.0
"""Initial ``s`` of rotation errors, see `LearnedWeighting`."""


@dataclass(frozen=True)
class SceneScale:
    """Lengths of a map in normalised units."""

    anchor_spread: float
    """About the distance of neighbouring anchors."""
    reach: float
    """Largest distance between the cameras of overlapping images."""
    distance_per_radian: float
    """Distance that one radian of rotation counts in the distance between two poses."""
    widest_angle: float
    """Largest angle between the cameras of overlapping images, radians (not a length)."""
    scale_m: float = 1.0
    """Length of one normalised unit, metres."""


class Objective(nn.Module):
    """Computes the weighted sum of the loss terms that the configuration enables, over both twins."""

    def __init__(self, config: LossConfig, network: SiameseNetwork, scene: SceneScale) -> None:
        super().__init__()
        self.config = config
        overlap = scene.reach, scene.widest_angle
        self.global_pose = GlobalPoseTerm(network.global_unit.anchors_K3, scene.anchor_spread)
        self.relative_pose = RelativePoseTerm(*overlap)
        self.consistency = ConsistencyTerm(*overlap)
        self.mapnet_relative = MapNetRelativeTerm()
        self.metric_distance = AdaptiveMetricTerm(scene.reach, scene.distance_per_radian)
        self.reprojection = ReprojectionTerm()
        self.uncertainty = UncertaintyTerm()
        s_within_reach = math.log(scene.reach / 4.0)
        rotation_weight = config.global_pose.weight
        learned = {
            "relative_translation": s_within_reach,
            "relative_rotation": INITIAL_S_ROTATION,
            "consistency_translation": s_within_reach,
            "consistency_rotation": INITIAL_S_ROTATION,
        }
        if config.fixed_beta_m is None:
            learned |= {"translation": 0.0, "rotation": INITIAL_S_ROTATION}
        else:
            rotation_weight *= config.fixed_beta_m / scene.scale_m
        self.weighting = LearnedWeighting(
            {
                "translation": config.global_pose.weight,
                "rotation": rotation_weight,
                "anchor": config.global_pose.weight,
                "relative_translation": config.relative_pose.weight,
                "relative_rotation": config.relative_pose.weight,
                "consistency_translation": config.consistency.weight,
                "consistency_rotation": config.consistency.weight,
                "metric": config.metric_distance.weight,
                "reprojection": config.reprojection.weight,
                "uncertainty": config.uncertainty.weight,
            },
            learned,
        )

    def forward(
        self,
        network: SiameseNetwork,
        twins: TwinOutput,
        true: Poses,
        point_BP3: Tensor | None = None,
        progress: float = 0.0,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and the errors of its terms by name.

        twins, true: first the first images of all pairs, then the second images in the same order. point_BP3:
        scene points that each image sees, normalised units in the map frame, for the reprojection term.
        progress: share of the training steps that are done, 0..1.
        """
        config = self.config
        errors: dict[str, Tensor] = {}
        truth = PairTruth(*true.chunk(2))
        if config.global_pose.enabled:
            errors |= self.global_pose(twins, true)
        if config.mapnet_relative.enabled:
            pairs_B = self.relative_pose.overlaps(truth)
            t, r = self.mapnet_relative(*twins.poses.chunk(2), truth, pairs_B)
            errors["translation"] = errors["translation"] + config.mapnet_relative.weight * t
            errors["rotation"] = errors["rotation"] + config.mapnet_relative.weight * r
        if config.reprojection.enabled and progress >= config.reprojection.start:
            assert point_BP3 is not None
            del errors["translation"], errors["rotation"]
            errors |= self.reprojection(twins.poses, true, point_BP3)
        if config.uncertainty.enabled:
            errors |= self.uncertainty(twins.precision_factor_B21, twins.poses, true)
        if config.metric_distance.enabled:
            errors |= self.metric_distance(*twins.metric_feature_BD.chunk(2), truth)
        if config.consistency.enabled:
            errors |= self.consistency(*twins.poses.chunk(2), truth)
        if config.relative_pose.enabled:
            assert network.relative_head is not None
            predicted = network.relative_head(*twins.feature_BF.chunk(2))
            errors |= self.relative_pose(predicted, truth)
        return self.weighting(errors), {name: error.detach() for name, error in errors.items()}
