"""Batches of poses as tensors, and the pose errors that the loss terms use."""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch
from torch import Tensor

POSE_SIZE = 6
"""Length of a pose error vector: three translations, then three rotations."""
PRECISION_ENTRIES = POSE_SIZE * (POSE_SIZE + 1) // 2
"""Number of entries of a lower triangular 6x6 matrix."""


@dataclass(frozen=True)
class Poses:
    """A batch of rigid transforms."""

    translation_B3: Tensor
    """Normalised units (metres divided by the target's scale)."""
    quaternion_wxyz_B4: Tensor
    """Unit length."""

    def __getitem__(self, chosen: Tensor) -> Poses:
        """Return a part of the batch. chosen: indices or a mask."""
        return Poses(self.translation_B3[chosen], self.quaternion_wxyz_B4[chosen])

    def chunk(self, count: int) -> list[Poses]:
        """Return the batch in `count` equal parts."""
        parts = self.translation_B3.chunk(count), self.quaternion_wxyz_B4.chunk(count)
        return [Poses(t, q) for t, q in zip(*parts, strict=True)]


@dataclass(frozen=True)
class PairTruth:
    """True poses ``T_map_camera`` of a batch of pairs."""

    first: Poses
    second: Poses

    def distance_B(self) -> Tensor:
        """Return the distances of the two camera centres ``(B,)``, normalised units."""
        return torch.linalg.vector_norm(
            self.first.translation_B3 - self.second.translation_B3, dim=1
        )

    def angle_B(self) -> Tensor:
        """Return the angles between the two cameras ``(B,)``, radians in 0..pi."""
        cosine = (self.first.quaternion_wxyz_B4 * self.second.quaternion_wxyz_B4).sum(dim=1).abs()
        return 2.0 * torch.acos(cosine.clamp(max=1.0))


def relative_poses(first: Poses, second: Poses) -> Poses:
    """Return ``T_1^-1 T_2`` by composition on SE(3): the poses of the second camera in the first one's frame.

    With ``T = (R, t)``: ``(R_1^T (t_2 - t_1), R_1^T R_2)``.
    """
    T_1 = roma.RigidUnitQuat(_xyzw(first), first.translation_B3)
    T_2 = roma.RigidUnitQuat(_xyzw(second), second.translation_B3)
    T_12 = T_1.inverse() @ T_2
    return Poses(T_12.translation, roma.quat_xyzw_to_wxyz(T_12.linear))


def rotation_matrix(quaternion_wxyz_B4: Tensor) -> Tensor:
    """Return the rotation matrices ``(B, 3, 3)`` of unit quaternions wxyz."""
    return roma.unitquat_to_rotmat(roma.quat_wxyz_to_xyzw(quaternion_wxyz_B4))


def multiply_wxyz(first_B4: Tensor, second_B4: Tensor) -> Tensor:
    """Return the Hamilton product of quaternions wxyz: the rotation `second`, then `first`."""
    first_xyzw, second_xyzw = (roma.quat_wxyz_to_xyzw(q) for q in (first_B4, second_B4))
    return roma.quat_xyzw_to_wxyz(roma.quat_product(first_xyzw, second_xyzw))


def translation_errors(predicted_B3: Tensor, true_B3: Tensor) -> Tensor:
    """Return ``||t - t*||_1`` of each pose of the batch, ``(B,)``."""
    return (predicted_B3 - true_B3).abs().sum(dim=1)


def rotation_errors(predicted_wxyz_B4: Tensor, true_wxyz_B4: Tensor) -> Tensor:
    """Return ``min(||q - q*||_1, ||q + q*||_1)`` of each pose of the batch, ``(B,)``, for unit quaternions.

    ``q`` and ``-q`` are the same rotation, so their error is zero.
    """
    plus = (predicted_wxyz_B4 - true_wxyz_B4).abs().sum(dim=1)
    minus = (predicted_wxyz_B4 + true_wxyz_B4).abs().sum(dim=1)
    return torch.minimum(plus, minus)


def rotation_error(predicted_wxyz_B4: Tensor, true_wxyz_B4: Tensor) -> Tensor:
    """Return the mean of `rotation_errors` over the batch."""
    return rotation_errors(predicted_wxyz_B4, true_wxyz_B4).mean()


def _xyzw(poses: Poses) -> Tensor:
    return roma.quat_wxyz_to_xyzw(poses.quaternion_wxyz_B4)
