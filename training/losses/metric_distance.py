"""Loss term that relates the distance of metric features to the distance of the poses."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rgsiam_training.model.poses import PairTruth

LARGEST_MARGIN = math.sqrt(2.0)
"""Margin of distant poses: the distance of orthogonal unit features."""
_SOFTENING = 1e-8
"""The constant e of the softened distance."""


class AdaptiveMetricTerm(nn.Module):
    """Our reading of the adaptive metric distance: a margin that depends on the pair's pose distance.

    ``f_1, f_2`` are the unit features of a pair and ``D = ||f_1 - f_2||_2``. The pose distance is
    ``d = (||t_1* - t_2*||_2 + c angle(R_1*, R_2*)) / reach``, and the margin is
    ``m(d) = sqrt(2) (1 - exp(-d))``: 0 for equal poses, sqrt(2) (orthogonal features) for distant ones.
    ``metric`` is the batch mean of ``max(0, D - m)^2`` for near pairs (``d < 1``) and of
    ``max(0, m - D)^2`` for the others. Features of near pairs are pulled together to within the margin.
    Features of other pairs are pushed apart to at least the margin, so the error of look-alikes grows with
    the distance of their poses. Zero where ``D = m(d)`` for all pairs. ``D`` is computed as
    ``sqrt(D^2 + e) - sqrt(e)`` with e = 1e-8, whose gradient is finite at equal features.
    """

    def __init__(self, reach: float, distance_per_radian: float) -> None:
        """reach: normalised units. distance_per_radian: ``c`` of the formula, normalised units."""
        super().__init__()
        self.reach = reach
        self.distance_per_radian = distance_per_radian

    def forward(
        self, first_feature_BD: Tensor, second_feature_BD: Tensor, truth: PairTruth
    ) -> dict[str, Tensor]:
        """Return the error by name. The features have unit length."""
        squared_B = (first_feature_BD - second_feature_BD).square().sum(dim=1)
        D_B = torch.sqrt(squared_B + _SOFTENING) - math.sqrt(_SOFTENING)
        d_B = (truth.distance_B() + self.distance_per_radian * truth.angle_B()) / self.reach
        margin_B = LARGEST_MARGIN * (1.0 - torch.exp(-d_B))
        excess_B = torch.where(d_B < 1.0, D_B - margin_B, margin_B - D_B)
        return {"metric": excess_B.clamp(min=0.0).square().mean()}
