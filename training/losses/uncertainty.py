"""Loss term of the covariance that a twin predicts for its global pose."""

from __future__ import annotations

import roma
import torch
from torch import Tensor, nn

from rgsiam_training.model.poses import POSE_SIZE, Poses


def whitening_matrix(factor_B21: Tensor) -> Tensor:
    """Return the lower triangular ``W`` ``(B, 6, 6)`` with a positive diagonal for 21 unconstrained numbers.

    The first six numbers are the logarithms of the diagonal. The others are the entries below it, row by
    row. The covariance is ``(W^T W)^-1``, in the order x y z rotX rotY rotZ, in the axes of the camera,
    translation in normalised units.
    """
    rows, columns = torch.tril_indices(POSE_SIZE, POSE_SIZE, offset=-1)
    W = torch.diag_embed(factor_B21[:, :POSE_SIZE].exp())
    W[:, rows, columns] = factor_B21[:, POSE_SIZE:]
    return W


@torch.no_grad()
def camera_errors(predicted: Poses, true: Poses) -> Tensor:
    """Return pose errors ``(B, 6)`` in the predicted camera's axes: ``R^T (t - t*)``, ``Log(R*^T R)``."""
    q_xyzw, true_xyzw = (
        roma.quat_wxyz_to_xyzw(poses.quaternion_wxyz_B4) for poses in (predicted, true)
    )
    inverse_xyzw = roma.quat_conjugation(q_xyzw)
    translation = roma.quat_action(inverse_xyzw, predicted.translation_B3 - true.translation_B3)
    rotation_xyzw = roma.quat_product(roma.quat_conjugation(true_xyzw), q_xyzw)
    rotation_xyzw = torch.where(rotation_xyzw[:, 3:] < 0.0, -rotation_xyzw, rotation_xyzw)
    return torch.cat([translation, roma.unitquat_to_rotvec(rotation_xyzw)], dim=1)


class UncertaintyTerm(nn.Module):
    """Trains the covariance of each image by the negative log-likelihood of a Gaussian.

    With ``e`` of `camera_errors` and ``W`` of `whitening_matrix`, ``uncertainty`` is the batch mean of
    ``||W e||^2 / 2 - log det W``. The term does not change the pose: it treats ``e`` and the features that
    ``W`` is computed from as constants. The covariance is not calibrated, because errors on training images
    are smaller than on other images.
    """

    def forward(self, factor_B21: Tensor, predicted: Poses, true: Poses) -> dict[str, Tensor]:
        """Return the error by name."""
        e_B6 = camera_errors(predicted, true)
        whitened_B6 = (whitening_matrix(factor_B21) @ e_B6[..., None])[..., 0]
        log_determinant_B = factor_B21[:, :POSE_SIZE].sum(dim=1)
        return {"uncertainty": (0.5 * whitened_B6.square().sum(dim=1) - log_determinant_B).mean()}
