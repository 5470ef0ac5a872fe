"""How far off a twin believes its own pose to be."""

from __future__ import annotations

import roma
import torch
from torch import Tensor, nn

from rgsiam_training.model.poses import POSE_SIZE, Poses


def whitening_matrix(factor_B21: Tensor) -> Tensor:
    """Lower triangular ``W`` ``(B, 6, 6)`` with a positive diagonal from 21 free numbers.

    The first six are logarithms of the diagonal, the others stand below it, row by row. The
    covariance is ``(W^T W)^-1``, order x y z rotX rotY rotZ in the camera's own axes, translation in
    normalised units.
    """
    rows, columns = torch.tril_indices(POSE_SIZE, POSE_SIZE, offset=-1)
    W = torch.diag_embed(factor_B21[:, :POSE_SIZE].exp())
    W[:, rows, columns] = factor_B21[:, POSE_SIZE:]
    return W


@torch.no_grad()
def camera_errors(predicted: Poses, true: Poses) -> Tensor:
    """Pose errors ``(B, 6)`` in the predicted camera's own axes: ``R^T (t - t*)``, ``Log(R*^T R)``."""
    q_xyzw, true_xyzw = (
        roma.quat_wxyz_to_xyzw(poses.quaternion_wxyz_B4) for poses in (predicted, true)
    )
    inverse_xyzw = roma.quat_conjugation(q_xyzw)
    shift = roma.quat_action(inverse_xyzw, predicted.translation_B3 - true.translation_B3)
    between = roma.quat_product(roma.quat_conjugation(true_xyzw), q_xyzw)
    between = torch.where(between[:, 3:] < 0.0, -between, between)
    return torch.cat([shift, roma.unitquat_to_rotvec(between)], dim=1)


class UncertaintyTerm(nn.Module):
    """Per-image covariance, trained beside the pose terms by the Gaussian's negative log-likelihood.

    With ``e`` of `camera_errors` and ``W`` of `whitening_matrix`, ``uncertainty`` is the batch mean of
    ``||W e||^2 / 2 - log det W``. The pose is not moved by it: ``e`` is a constant here, and so are
    the features that W is read from. What comes out is raw: errors in training are smaller than
    errors elsewhere.
    """

    def forward(self, factor_B21: Tensor, predicted: Poses, true: Poses) -> dict[str, Tensor]:
        """The error, by name."""
        e_B6 = camera_errors(predicted, true)
        whitened_B6 = (whitening_matrix(factor_B21) @ e_B6[..., None])[..., 0]
        log_determinant_B = factor_B21[:, :POSE_SIZE].sum(dim=1)
        return {"uncertainty": (0.5 * whitened_B6.square().sum(dim=1) - log_determinant_B).mean()}
