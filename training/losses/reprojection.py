"""Scene points seen from the predicted pose against where they are seen from the true one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rgsiam_training.distributed import mean_count
from rgsiam_training.model.gauss_newton import rotation_matrix
from rgsiam_training.model.poses import Poses

LINEAR_UP_TO = 1.0
"""About the error of one point, in normalised image coordinates (90 degrees of view are 2 wide), from
which on it counts less and less."""
NEAREST_SHARE = 0.05
"""Points are never taken to be nearer than this share of their true depth."""


class ReprojectionTerm(nn.Module):
    """Our reading of the geometric reprojection loss of Kendall and Cipolla 2017 (arXiv 1704.00390).

    With ``pi(T, g)`` the normalised image coordinates ``(x / z, y / z)`` of a scene point g in a camera
    at T, ``reprojection`` is the mean over the scene points of the batch of
    ``||pi(T, g) - pi(T*, g)||_1``, each point's error e taken as ``c log(1 + e / c)`` with c = 1, so
    that points which pass behind the predicted camera do not rule the batch and yet pull; depths in
    the predicted camera are never taken smaller than a twentieth of the true ones. Zero at the truth. The
    authors start it from a network trained with learned weights; so do we
    (`rgsiam_training.config.ReprojectionConfig.start`).
    """

    def forward(self, predicted: Poses, true: Poses, point_BP3: Tensor) -> dict[str, Tensor]:
        """The error, by name. point_BP3: scene points in the map, normalised; NaN where there is none."""
        known_BP = point_BP3.isfinite().all(dim=2)
        point_BP3 = torch.where(known_BP[..., None], point_BP3, 0.0)
        true_BP3 = _in_camera(true, point_BP3)
        known_BP = known_BP & (true_BP3[..., 2] > 0.0)
        depth_BP = torch.where(known_BP, true_BP3[..., 2], 1.0)
        predicted_BP3 = _in_camera(predicted, point_BP3)
        nearest_BP = torch.maximum(predicted_BP3[..., 2], NEAREST_SHARE * depth_BP)
        seen_BP2 = predicted_BP3[..., :2] / nearest_BP[..., None]
        error_BP = (seen_BP2 - true_BP3[..., :2] / depth_BP[..., None]).abs().sum(dim=2)
        tamed_BP = LINEAR_UP_TO * torch.log1p(error_BP / LINEAR_UP_TO)
        share_BP = known_BP.float() / mean_count(known_BP.sum())
        return {"reprojection": (share_BP * tamed_BP).sum()}


def _in_camera(poses: Poses, point_BP3: Tensor) -> Tensor:
    R_map_camera = rotation_matrix(poses.quaternion_wxyz_B4)
    return (point_BP3 - poses.translation_B3[:, None]) @ R_map_camera
