"""What two poses say together."""

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


def _bounded(error_B: Tensor, largest: float) -> Tensor:
    return largest * (1.0 - torch.exp(-error_B / largest))


class _OverOverlappingPairs(nn.Module):
    """Means over the pairs that can see a common part of the world; zero where there is none.

    A pair's error ``e`` enters as ``c (1 - exp(-e / c))``, with c the reach for translations and half
    a radian for rotations: nearly ``e`` while small, never more than c, so that pairs whose match
    fails altogether do not rule the batch.
    """

    def __init__(self, reach: float, widest_angle: float) -> None:
        """reach: largest distance of the two cameras, normalised; widest_angle: radians."""
        super().__init__()
        self.reach = reach
        self.widest_angle = widest_angle

    def overlaps(self, truth: PairTruth) -> Tensor:
        """Which pairs count, ``(B,)`` bool."""
        return (truth.distance_B() <= self.reach) & (truth.angle_B() <= self.widest_angle)

    def errors(self, predicted: Poses, truth: PairTruth) -> tuple[Tensor, Tensor]:
        """Mean translation and rotation error of relative poses."""
        overlap_B = self.overlaps(truth)
        share_B = overlap_B.float() / mean_count(overlap_B.sum())
        true = relative_poses(truth.first, truth.second)
        t_B = translation_errors(predicted.translation_B3, true.translation_B3)
        r_B = rotation_errors(predicted.quaternion_wxyz_B4, true.quaternion_wxyz_B4)
        return (
            (share_B * _bounded(t_B, self.reach)).sum(),
            (share_B * _bounded(r_B, LARGEST_ROTATION_ERROR)).sum(),
        )


class RelativePoseTerm(_OverOverlappingPairs):
    """Our reading of the relative pose loss: the second head against ``T_12* = T_1*^-1 T_2*``.

    With ``(t, q)`` the head's relative pose: ``relative_translation`` is the mean of
    ``||t - t_12*||_1`` (normalised) and ``relative_rotation`` that of
    ``min(||q - q_12*||_1, ||q + q_12*||_1)``, over the pairs of the batch whose cameras are within
    `reach` and `widest_angle` of each other: others share no view to measure a motion by. Zero at
    the truth.
    """

    def forward(self, predicted: Poses, truth: PairTruth) -> dict[str, Tensor]:
        """The two errors, by name."""
        t, r = self.errors(predicted, truth)
        return {"relative_translation": t, "relative_rotation": r}


class RelativeRegressionTerm(RelativePoseTerm):
    """The same errors for a relative pose that is regressed from two features, as Laskar et al. 2017
    (arXiv 1707.09733) and others do; named ``regressed_translation`` and ``regressed_rotation``.
    """

    def forward(self, predicted: Poses, truth: PairTruth) -> dict[str, Tensor]:
        """The two errors, by name."""
        t, r = self.errors(predicted, truth)
        return {"regressed_translation": t, "regressed_rotation": r}


class ConsistencyTerm(_OverOverlappingPairs):
    """Our reading of the relative-geometry consistency: two *predicted global* poses must stand to
    each other as the true ones do.

    The same errors as `RelativePoseTerm`, with ``T_1^-1 T_2`` computed by SE(3) composition from the
    twins' predicted global poses. Zero at the truth, and also for predictions that are all off by
    one common rigid motion of the map (``G T_1`` and ``G T_2``): it ties poses together, the global
    term ties them to the map.
    """

    def forward(self, first: Poses, second: Poses, truth: PairTruth) -> dict[str, Tensor]:
        """The two errors, by name."""
        t, r = self.errors(relative_poses(first, second), truth)
        return {"consistency_translation": t, "consistency_rotation": r}
