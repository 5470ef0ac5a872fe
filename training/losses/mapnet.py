"""The relative term of MapNet, as its authors define it."""

from __future__ import annotations

import roma
import torch
from torch import Tensor, nn

from rgsiam_training.distributed import mean_count
from rgsiam_training.model.poses import PairTruth, Poses


class MapNetRelativeTerm(nn.Module):
    """Brahmbhatt et al. 2018 (arXiv 1712.03342): differences of parameters, not a pose on SE(3).

    With ``w = log q`` (half the rotation vector, of the half sphere ``q_w >= 0``) and
    ``v_12 = (t_1 - t_2, w_1 - w_2)`` of two images that overlap, the errors are the means over these
    pairs of ``||dt - dt*||_1`` and ``||dw - dw*||_1``. The authors weigh them like the poses
    themselves, so they are added to those errors and share their learned weights. Their pairs are
    images of one sequence a few frames apart; ours overlap in view. Zero at the truth.
    """

    def forward(self, first: Poses, second: Poses, truth: PairTruth, pairs_B: Tensor) -> tuple:
        """Translation and rotation error. pairs_B: which pairs count, bool."""
        share_B = pairs_B.float() / mean_count(pairs_B.sum())
        moved = first.translation_B3 - second.translation_B3
        true_moved = truth.first.translation_B3 - truth.second.translation_B3
        turned = _log(first) - _log(second)
        true_turned = _log(truth.first) - _log(truth.second)
        return (
            (share_B * (moved - true_moved).abs().sum(dim=1)).sum(),
            (share_B * (turned - true_turned).abs().sum(dim=1)).sum(),
        )


def _log(poses: Poses) -> Tensor:
    q = poses.quaternion_wxyz_B4
    q = torch.where(q[:, :1] < 0.0, -q, q)
    return 0.5 * roma.unitquat_to_rotvec(roma.quat_wxyz_to_xyzw(q))
