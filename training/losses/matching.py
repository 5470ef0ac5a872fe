"""Loss term of the matches between the local maps of two images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rgsiam_training.distributed import mean_count
from rgsiam_training.model.gauss_newton import rotation_matrix
from rgsiam_training.model.poses import Poses
from rgsiam_training.model.relative_unit import RelativeOutput

OUTLIER_SHARE = math.exp(-8.0)
"""The constant e: the assumed probability of a cell without a correct match."""


class MatchingTerm(nn.Module):
    """Our addition to the paper's terms: the relative unit's matches must agree with the true relative pose.

    Cell i of the first image is placed at its predicted depth and transformed into the second camera by the true
    relative pose, where its normalised image coordinates are ``p_i``. ``P_ij`` are the match probabilities, and ``K_j(p)`` are the
    weights of bilinear interpolation between the cells (of a pinhole camera with square pixels).
    ``matching`` is the mean of ``-log((1 - e) sum_j P_ij K_j(p_i) + e)`` over the cells that fall into the
    second image. ``e = exp(-8)`` allows for cells that are occluded or move. The error of a cell is zero
    when it is matched with probability 1 to the cell at ``p_i``.
    """

    ray_N2: Tensor

    def __init__(self, ray_N2: Tensor, cell: float) -> None:
        """ray_N2: normalised image coordinates of the cells. cell: distance of neighbouring cells in them."""
        super().__init__()
        self.register_buffer("ray_N2", ray_N2.clone(), persistent=False)
        self.cell = cell

    def forward(self, output: RelativeOutput, true: Poses, reach: float) -> dict[str, Tensor]:
        """Return the error by name. true: ``T_first_second``, normalised units. reach: normalised units."""
        R_12 = rotation_matrix(true.quaternion_wxyz_B4)
        moved = (output.point_BN3 - true.translation_B3[:, None] / reach) @ R_12
        true_ray_BN2 = moved[..., :2] / moved[..., 2:].clamp(min=1e-3)
        distance_BNN2 = (true_ray_BN2[:, :, None] - self.ray_N2).abs() / self.cell
        kernel_BNN = (1.0 - distance_BNN2).clamp(min=0.0).prod(dim=3)
        inside_BN = (kernel_BNN.detach().sum(dim=2) > 0.5) & (moved[..., 2].detach() > 0.0)
        probability_BN = (output.match_BNN * kernel_BNN).sum(dim=2)
        error_BN = -torch.log((1.0 - OUTLIER_SHARE) * probability_BN + OUTLIER_SHARE)
        share_BN = inside_BN.float() / mean_count(inside_BN.sum())
        return {"matching": (share_BN * error_BN).sum()}
