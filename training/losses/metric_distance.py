"""Distance of features against distance of poses."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rgsiam_training.model.poses import PairTruth

LARGEST_MARGIN = math.sqrt(2.0)
_SOFTENING = 1e-8


class AdaptiveMetricTerm(nn.Module):
    """Our reading of the adaptive metric distance: a margin that follows the pair's pose distance.

    With ``f_1, f_2`` unit features and ``D = ||f_1 - f_2||_2``, a pair's pose distance is
    ``d = (||t_1* - t_2*||_2 + c angle(R_1*, R_2*)) / reach`` and its margin
    ``m(d) = sqrt(2) (1 - exp(-d))``: 0 for one pose, sqrt(2) (unrelated directions) for distant ones.
    ``metric`` is the batch mean of ``max(0, D - m)^2`` for near pairs (``d < 1``), which are drawn
    together to within their margin, and of ``max(0, m - D)^2`` for the others, which are pushed apart
    until they are at least that far: look-alikes cost in proportion to how far apart they stand.
    Zero where ``D = m(d)`` everywhere. ``D`` is taken as ``sqrt(D^2 + e) - sqrt(e)`` with e = 1e-8,
    whose gradient is finite at equal features.
    """

    def __init__(self, reach: float, distance_per_radian: float) -> None:
        """reach: normalised units; distance_per_radian: the c above, normalised units."""
        super().__init__()
        self.reach = reach
        self.distance_per_radian = distance_per_radian

    def forward(
        self, first_feature_BD: Tensor, second_feature_BD: Tensor, truth: PairTruth
    ) -> dict[str, Tensor]:
        """The error, by name. Features of unit length."""
        squared_B = (first_feature_BD - second_feature_BD).square().sum(dim=1)
        apart_B = torch.sqrt(squared_B + _SOFTENING) - math.sqrt(_SOFTENING)
        pose_B = (truth.distance_B() + self.distance_per_radian * truth.angle_B()) / self.reach
        margin_B = LARGEST_MARGIN * (1.0 - torch.exp(-pose_B))
        excess_B = torch.where(pose_B < 1.0, apart_B - margin_B, margin_B - apart_B)
        return {"metric": excess_B.clamp(min=0.0).square().mean()}
