"""What goes into a bundle's networks, what comes out of them, and what that means in metres."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from rgsiam_ros.errors import EngineError
from rgsiam_ros.geometry.poses import Array, pose_matrix

if TYPE_CHECKING:
    from rgsiam_ros.bundle.manifest import Target

IMAGE = "image"
"""absolute.onnx, in: ``(1, 3, H, W)``."""
TRANSLATION = "translation_normalised"
"""Out of both. absolute: ``(1, 3)``, the camera in the map, metres are ``origin_m + scale_m * x``;
relative: ``(K, 3)``, the live camera in each map image's camera, metres are ``scale_m * x``."""
ROTATION = "rotation_quaternion_wxyz"
"""Out of both: unit quaternions ``(1, 4)`` or ``(K, 4)`` of the same."""
PRECISION_FACTOR = "precision_factor"
"""absolute.onnx, out, optional: ``(1, 21)``, the network's own uncertainty."""
METRIC_FEATURE = "metric_feature"
"""absolute.onnx, out, optional: ``(1, D)`` of unit length, for looking up map images."""
LOCAL_MAP = "local_map"
"""absolute.onnx, out, and relative.onnx, in: ``(1, C, h, w)``, what the relative unit needs of the
live image."""
MAP_LOCAL = "map_local_map"
"""relative.onnx, in: ``(K, C, h, w)``, those of map images."""
INFORMATION = "information"
"""relative.onnx, out: ``(K, 6, 6)`` of a small motion of the live camera in its own axes, translation
in normalised units, up to the scale of the noise."""

SMALLEST_QUATERNION = 1e-6
"""A shorter one is no rotation."""

UNUSABLE = "the network answered with non-finite numbers: the image is dropped"


def restore_poses(translation: ArrayLike, quaternion_wxyz: ArrayLike, target: Target) -> Array:
    """Poses ``(..., 4, 4)``, metres, float64, from a network's normalised float32 outputs.

    translation: ``(..., 3)``, normalised; quaternion_wxyz: ``(..., 4)``, of any length. Raises
    EngineError when a number is not finite or a quaternion is zero.
    """
    T_map_network = np.eye(4)
    T_map_network[:3, :3] = pose_matrix(np.zeros(3), target.turn_wxyz)[:3, :3]
    T_map_network[:3, 3] = target.origin_m
    return T_map_network @ restore_relative_poses(translation, quaternion_wxyz, target)


def restore_relative_poses(
    translation: ArrayLike, quaternion_wxyz: ArrayLike, target: Target
) -> Array:
    """As `restore_poses`, for poses of one camera in another: scaled, but with no origin."""
    metres = target.scale_m * np.asarray(translation, np.float64)
    q_wxyz = np.asarray(quaternion_wxyz, np.float64)
    norm = np.linalg.norm(q_wxyz, axis=-1, keepdims=True)
    if not (
        np.isfinite(metres).all() and np.isfinite(norm).all() and (norm > SMALLEST_QUATERNION).all()
    ):
        raise EngineError(UNUSABLE)
    return pose_matrix(metres, q_wxyz / norm)


def raw_covariance(outputs: Mapping[str, np.ndarray], target: Target) -> Array | None:
    """The absolute branch's own uncertainty ``(6, 6)`` in the camera's axes, metres and radians.

    From the precision factor: 21 numbers, of a lower triangular W (logarithms of its diagonal first,
    then what is below it, row by row); the covariance is ``(W^T W)^-1``. None where the network does
    not say; all NaN where what it says is not usable.
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
