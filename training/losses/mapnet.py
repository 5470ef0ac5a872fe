"""Relative pose term of MapNet, as its authors define it."""

from __future__ import annotations

import roma
import torch
from torch import Tensor, nn

from rgsiam_training.distributed import mean_count
from rgsiam_training.model.poses import PairTruth, Poses


class MapNetRelativeTerm(nn.Module):
    """Relative term of Brahmbhatt et al. 2018 (arXiv 1712.03342): differences of pose parameters.

    It does not compose poses on SE(3). ``w = log q`` is half the rotation vector, where the sign of q is chosen
    so that ``q_w >= 0``, and ``v_12 = (t_1 - t_2, w_1 - w_2)`` belongs to two overlapping images. The errors are
    the means over these pairs of ``||dt - dt*||_1`` and ``||dw - dw*||_1``. The authors give these errors
    the same weights as the pose errors. So they are added to the pose errors and share their learned
    weights. The authors' pairs are a few frames apart in one sequence; our pairs have overlapping views.
    Zero at the true poses.
    """

    def forward(
        self, first: Poses, second: Poses, truth: PairTruth, pairs_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the translation error and the rotation error. pairs_B: bool, which pairs count."""
        share_B = pairs_B.float() / mean_count(pairs_B.sum())
        dt = first.translation_B3 - second.translation_B3
        true_dt = truth.first.translation_B3 - truth.second.translation_B3
        dw = _log(first) - _log(second)
        true_dw = _log(truth.first) - _log(truth.second)
        return (
            (share_B * (dt - true_dt).abs().sum(dim=1)).sum(),
            (share_B * (dw - true_dw).abs().sum(dim=1)).sum(),
        )


def _log(poses: Poses) -> Tensor:
    """Return the logarithms of the quaternions ``(B, 3)``."""
    q_wxyz = poses.quaternion_wxyz_B4
    q_wxyz = torch.where(q_wxyz[:, :1] < 0.0, -q_wxyz, q_wxyz)
    return 0.5 * roma.unitquat_to_rotvec(roma.quat_wxyz_to_xyzw(q_wxyz))
