"""Loss term that compares the projections of scene points at the predicted and at the true pose."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rgsiam_training.distributed import mean_count
from rgsiam_training.model.poses import Poses, rotation_matrix

LINEAR_UP_TO = 1.0
"""The constant c of the robust error: errors below it count nearly in full, larger errors count less. It is in
normalised image coordinates, in which a field of view of 90 degrees is 2 wide."""
NEAREST_SHARE = 0.05
"""Smallest depth of a point in the predicted camera, as a share of its true depth."""


class ReprojectionTerm(nn.Module):
    """Our reading of the geometric reprojection loss of Kendall and Cipolla 2017 (arXiv 1704.00390).

    ``pi(T, g)`` are the normalised image coordinates ``(x / z, y / z)`` of a scene point g in a camera at
    T. ``reprojection`` is the mean over the scene points of the batch of ``||pi(T, g) - pi(T*, g)||_1``,
    where each point's error e counts as ``c log(1 + e / c)`` with c = 1. So points behind the predicted
    camera do not dominate the batch but still have a gradient. Depths in the predicted camera are clamped
    to at least a twentieth of the true depths. Zero at the true pose. The authors start this loss from a
    network that was trained with learned weights, and so do we
    (`rgsiam_training.config.ReprojectionConfig.start`).
    """

    def forward(self, predicted: Poses, true: Poses, point_BP3: Tensor) -> dict[str, Tensor]:
        """Return the error by name.

        point_BP3: scene points in the map frame, normalised units; NaN where an image has fewer points.
        """
        known_BP = point_BP3.isfinite().all(dim=2)
        point_BP3 = torch.where(known_BP[..., None], point_BP3, 0.0)
        true_BP3 = _in_camera(true, point_BP3)
        known_BP = known_BP & (true_BP3[..., 2] > 0.0)
        depth_BP = torch.where(known_BP, true_BP3[..., 2], 1.0)
        predicted_BP3 = _in_camera(predicted, point_BP3)
        clamped_depth_BP = torch.maximum(predicted_BP3[..., 2], NEAREST_SHARE * depth_BP)
        projected_BP2 = predicted_BP3[..., :2] / clamped_depth_BP[..., None]
        error_BP = (projected_BP2 - true_BP3[..., :2] / depth_BP[..., None]).abs().sum(dim=2)
        robust_BP = LINEAR_UP_TO * torch.log1p(error_BP / LINEAR_UP_TO)
        share_BP = known_BP.float() / mean_count(known_BP.sum())
        return {"reprojection": (share_BP * robust_BP).sum()}


def _in_camera(poses: Poses, point_BP3: Tensor) -> Tensor:
    R_map_camera = rotation_matrix(poses.quaternion_wxyz_B4)
    return (point_BP3 - poses.translation_B3[:, None]) @ R_map_camera
