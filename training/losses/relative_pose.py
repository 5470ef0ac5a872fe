"""Loss terms of the relative pose of two images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rgsiam_training.distributed import mean_count
from rgsiam_training.model.poses import (
    PairTruth,
    Poses,
    relative_poses,
    rotation_errors,
    translation_errors,
)

LARGEST_ROTATION_ERROR = 0.5
"""Limit of the bounded rotation error of a pair."""


def _bounded(error_B: Tensor, largest: float) -> Tensor:
    """Return ``c (1 - exp(-e / c))`` for errors ``e`` and the limit ``c``."""
    return largest * (1.0 - torch.exp(-error_B / largest))


class _OverlappingPairsTerm(nn.Module):
    """Base class of the terms that compare relative poses, over the pairs whose images can overlap.

    An error is the mean over these pairs, and zero when the batch has no such pair. The error ``e`` of a pair
    is bounded: it counts as ``b(e) = c (1 - exp(-e / c))``, where c is the reach for translations and 0.5 for
    rotations. This is nearly ``e`` for small errors and always less than c, so that single pairs with
    large errors do not dominate the batch.
    """

    def __init__(self, reach: float, widest_angle: float) -> None:
        """reach: largest distance of the two cameras, normalised units. widest_angle: largest angle,
        radians.
        """
        super().__init__()
        self.reach = reach
        self.widest_angle = widest_angle

    def overlaps(self, truth: PairTruth) -> Tensor:
        """Return which pairs count, ``(B,)`` bool."""
        return (truth.distance_B() <= self.reach) & (truth.angle_B() <= self.widest_angle)

    def errors(self, predicted: Poses, truth: PairTruth) -> tuple[Tensor, Tensor]:
        """Return the mean translation error and the mean rotation error of relative poses ``T_12``."""
        overlap_B = self.overlaps(truth)
        share_B = overlap_B.float() / mean_count(overlap_B.sum())
        true = relative_poses(truth.first, truth.second)
        t_B = translation_errors(predicted.translation_B3, true.translation_B3)
        r_B = rotation_errors(predicted.quaternion_wxyz_B4, true.quaternion_wxyz_B4)
        return (
            (share_B * _bounded(t_B, self.reach)).sum(),
            (share_B * _bounded(r_B, LARGEST_ROTATION_ERROR)).sum(),
        )


class RelativePoseTerm(_OverlappingPairsTerm):
    """Our reading of the relative pose loss: compares the relative pose head with ``T_12* = T_1*^-1 T_2*``.

    ``(t, q)`` is the predicted relative pose. ``relative_translation`` is the mean of
    ``b(||t - t_12*||_1)`` (normalised), and ``relative_rotation`` is the mean of
    ``b(min(||q - q_12*||_1, ||q + q_12*||_1))``. The bound is ``b(e) = c (1 - exp(-e / c))``, with the reach
    as c for translations and 0.5 for rotations. The means are over the pairs of the batch whose cameras are
    within `reach` and `widest_angle` of each other; the views of other pairs do not overlap. Zero at the true
    relative pose.
    """

    def forward(self, predicted: Poses, truth: PairTruth) -> dict[str, Tensor]:
        """Return the two errors by name."""
        t, r = self.errors(predicted, truth)
        return {"relative_translation": t, "relative_rotation": r}


class ConsistencyTerm(_OverlappingPairsTerm):
    """Our reading of the relative-geometry consistency: compares the relative pose of two *predicted global*
    poses with the true one.

    The errors are those of `RelativePoseTerm`, with ``T_1^-1 T_2`` computed by SE(3) composition from the
    twins' predicted global poses. They are zero at the true poses, and also when all predictions are off by
    one common rigid motion of the map (``G T_1`` and ``G T_2``). This term constrains poses relative to
    each other; the global pose term constrains them in the map frame.
    """

    def forward(self, first: Poses, second: Poses, truth: PairTruth) -> dict[str, Tensor]:
        """Return the two errors by name."""
        t, r = self.errors(relative_poses(first, second), truth)
        return {"consistency_translation": t, "consistency_rotation": r}
