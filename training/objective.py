"""All loss terms of a run over one batch of pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rgsiam_training.config import LossConfig
from rgsiam_training.losses.global_pose import GlobalPoseTerm
from rgsiam_training.losses.matching import MatchingTerm
from rgsiam_training.losses.metric_distance import AdaptiveMetricTerm
from rgsiam_training.losses.poses import PairTruth, Poses, relative_poses
from rgsiam_training.losses.relative_pose import ConsistencyTerm, RelativePoseTerm
from rgsiam_training.losses.uncertainty import UncertaintyTerm
from rgsiam_training.losses.weighting import LearnedWeighting
from rgsiam_training.network import SiameseNetwork, TwinOutput

INITIAL_S_ROTATION = -3.0


@dataclass(frozen=True)
class Scene:
    """Lengths of a map in normalised units."""

    anchor_spread: float
    """About the distance of neighbouring anchors."""
    reach: float
    """Largest distance of overlapping images' cameras."""
    distance_per_radian: float
    widest_angle: float
    """Radians: cameras turned farther from each other share no view."""


class Objective(nn.Module):
    """The terms that the configuration switches on, weighted, over both twins."""

    def __init__(self, config: LossConfig, network: SiameseNetwork, scene: Scene) -> None:
        super().__init__()
        self.config = config
        self.scene = scene
        overlap = scene.reach, scene.widest_angle
        unit = network.relative_unit
        self.global_pose = GlobalPoseTerm(network.global_unit.anchors_K3, scene.anchor_spread)
        self.relative_pose = RelativePoseTerm(*overlap)
        self.consistency = ConsistencyTerm(*overlap)
        self.metric_distance = AdaptiveMetricTerm(scene.reach, scene.distance_per_radian)
        self.matching = MatchingTerm(unit.ray_N2, unit.cell)
        self.uncertainty = UncertaintyTerm()
        small = math.log(scene.reach / 4.0)
        self.weighting = LearnedWeighting(
            {
                "translation": config.global_pose.weight,
                "rotation": config.global_pose.weight,
                "anchor": config.global_pose.weight,
                "relative_translation": config.relative_pose.weight,
                "relative_rotation": config.relative_pose.weight,
                "consistency_translation": config.consistency.weight,
                "consistency_rotation": config.consistency.weight,
                "metric": config.metric_distance.weight,
                "matching": config.matching.weight,
                "uncertainty": config.uncertainty.weight,
            },
            {
                "translation": 0.0,
                "rotation": INITIAL_S_ROTATION,
                "relative_translation": small,
                "relative_rotation": INITIAL_S_ROTATION,
                "consistency_translation": small,
                "consistency_rotation": INITIAL_S_ROTATION,
            },
        )

    def forward(
        self, network: SiameseNetwork, twins: TwinOutput, true: Poses
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss, and its errors by name. The batch holds the first twin's images, then the second's."""
        errors: dict[str, Tensor] = {}
        if self.config.global_pose.enabled:
            errors |= self.global_pose(twins, true)
        if self.config.uncertainty.enabled:
            errors |= self.uncertainty(twins.precision_factor_B21, twins.poses, true)
        truth = PairTruth(*true.chunk(2))
        if self.config.metric_distance.enabled:
            errors |= self.metric_distance(*twins.metric_feature_BD.chunk(2), truth)
        if self.config.consistency.enabled:
            errors |= self.consistency(*twins.poses.chunk(2), truth)
        if self.config.relative_pose.enabled or self.config.matching.enabled:
            errors |= self._relative(network, twins.local_BCHW, true)
        return self.weighting(errors), {name: error.detach() for name, error in errors.items()}

    def _relative(
        self, network: SiameseNetwork, local_BCHW: Tensor, true: Poses
    ) -> dict[str, Tensor]:
        """Over the overlapping pairs of the batch, each taken in both directions."""
        one, other = torch.arange(len(local_BCHW), device=local_BCHW.device).chunk(2)
        first, second = torch.cat([one, other]), torch.cat([other, one])
        overlaps = self.relative_pose.overlaps(PairTruth(true[first], true[second]))
        first, second = first[overlaps], second[overlaps]
        if len(first) == 0:
            return {}
        truth = PairTruth(true[first], true[second])
        output = network.relative_unit(local_BCHW[first], local_BCHW[second])
        errors: dict[str, Tensor] = {}
        if self.config.relative_pose.enabled:
            errors |= self.relative_pose(output.poses, truth)
        if self.config.matching.enabled:
            true_12 = relative_poses(truth.first, truth.second)
            errors |= self.matching(output, true_12, self.scene.reach)
        return errors
