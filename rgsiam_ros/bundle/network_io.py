"""Input and outputs of ``absolute.onnx`` by name, and their conversion to poses in metres."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from rgsiam_ros.errors import EngineError
from rgsiam_ros.geometry.poses import Array, pose_matrix

if TYPE_CHECKING:
    from rgsiam_ros.bundle.parts import Target

IMAGE = "image"
"""Input: ``(1, 3, H, W)``, a normalised image."""
TRANSLATION = "translation_normalised"
"""Output: ``(1, 3)``, position of the camera in the map; metres are ``origin_m + turn * (scale_m * x)``, see
`rgsiam_ros.bundle.parts.Target`."""
ROTATION = "rotation_quaternion_wxyz"
"""Output: ``(1, 4)``, rotation of the same pose, quaternion w x y z."""
PRECISION_FACTOR = "precision_factor"
"""Optional output: ``(1, 21)``, a factor of the inverse of the predicted covariance, see
`raw_covariance`. It has nothing to do with a number format (`rgsiam_ros.bundle.precision.Precision`)."""
METRIC_FEATURE = "metric_feature"
"""Optional output: ``(1, D)``, the metric feature, of unit length."""

SMALLEST_QUATERNION = 1e-6
"""A quaternion of a smaller norm gives no rotation."""

UNUSABLE = "the network's outputs are non-finite or not a rotation: the image is dropped"


def restore_poses(translation: ArrayLike, quaternion_wxyz: ArrayLike, target: Target) -> Array:
    """Poses ``T_map_camera`` ``(..., 4, 4)``, metres, float64, from the absolute branch's outputs.

    translation: ``(..., 3)``, normalised; quaternion_wxyz: ``(..., 4)``, of any norm. Raises EngineError if a
    number is not finite or a quaternion is zero.
    """
    T_map_network = np.eye(4)
    T_map_network[:3, :3] = pose_matrix(np.zeros(3), target.turn_wxyz)[:3, :3]
    T_map_network[:3, 3] = target.origin_m
    return T_map_network @ restore_relative_poses(translation, quaternion_wxyz, target)


def restore_relative_poses(
    translation: ArrayLike, quaternion_wxyz: ArrayLike, target: Target
) -> Array:
    """As `restore_poses`, but for poses of one camera in another: only the scale of `target` is applied."""
    metres = target.scale_m * np.asarray(translation, np.float64)
    q_wxyz = np.asarray(quaternion_wxyz, np.float64)
    norm = np.linalg.norm(q_wxyz, axis=-1, keepdims=True)
    if not (
        np.isfinite(metres).all() and np.isfinite(norm).all() and (norm > SMALLEST_QUATERNION).all()
    ):
        raise EngineError(UNUSABLE)
    return pose_matrix(metres, q_wxyz / norm)


def raw_covariance(outputs: Mapping[str, np.ndarray], target: Target) -> Array | None:
    """Covariance ``(6, 6)`` that the network predicts for the absolute pose, not calibrated.

    Axes of the camera, x y z rotX rotY rotZ, metres and radians. The 21 numbers of the precision factor are a
    lower triangular W: logarithms of its diagonal, then the elements below it, row by row. The covariance is
    ``(W^T W)^-1``, with the translation in normalised units until it is scaled to metres. None if the network
    has no such output; all NaN if the output is not usable.
    """
    if PRECISION_FACTOR not in outputs:
        return None
    factor = np.asarray(outputs[PRECISION_FACTOR][0], np.float64)
    W = np.diag(np.exp(np.clip(factor[:6], -20.0, 20.0)))
    W[np.tril_indices(6, -1)] = factor[6:]
    unusable = np.full((6, 6), np.nan)
    if not np.isfinite(W).all():
        return unusable
    with np.errstate(over="ignore", invalid="ignore"):
        root = np.diag([target.scale_m] * 3 + [1.0] * 3) @ np.linalg.inv(W)
        covariance = root @ root.T
    return covariance if np.isfinite(covariance).all() else unusable
