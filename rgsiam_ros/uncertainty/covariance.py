"""6x6 pose covariances in the order ``x y z rotX rotY rotZ``, metres and radians.

A pose error is ``delta_t = t_estimated - t_true`` and ``delta_theta = Log(R_estimated R_true^T)``, a
rotation about the fixed axes of the parent frame. This is the convention of REP-103 and of
``geometry_msgs/PoseWithCovariance``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rgsiam_ros.geometry.poses import Array, invert, rotation_vector, skew

MINIMUM_SAMPLES = 12
MINIMUM_SIGMA_M = 1e-3
MINIMUM_SIGMA_RAD = 1e-4
SMALLEST_EIGENVALUE = 1e-12
"""Smallest eigenvalue of the correlation matrix at which a covariance counts as positive definite."""


def check_covariance(covariance_66: ArrayLike) -> Array:
    """Return a ``(6, 6)`` covariance as float64.

    Raises ValueError unless it is finite, symmetric and positive definite.
    """
    covariance = np.asarray(covariance_66, np.float64)
    if covariance.shape != (6, 6):
        raise ValueError(f"a pose covariance has shape {covariance.shape}, not (6, 6)")
    if not np.isfinite(covariance).all():
        raise ValueError("a pose covariance holds a non-finite number")
    if not np.allclose(covariance, covariance.T, rtol=1e-6, atol=1e-15):
        raise ValueError("a pose covariance is not symmetric")
    sigma = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    if (
        sigma.min() <= 0.0
        or np.linalg.eigvalsh(covariance / np.outer(sigma, sigma)).min() < SMALLEST_EIGENVALUE
    ):
        raise ValueError("a pose covariance is not positive definite")
    return covariance


def decouple_plane(covariance_66: ArrayLike) -> Array:
    """Return a ``(6, 6)`` covariance without the correlations between (x, y, yaw) and (z, roll, pitch).

    Planar filters replace the variances of z, roll and pitch by small ones. With the correlations the
    resulting matrix could be indefinite.
    """
    plane = np.array([True, True, False, False, False, True])
    return np.where(plane[:, None] == plane[None, :], np.asarray(covariance_66, np.float64), 0.0)


def rotate_axes(covariance_66: ArrayLike, R_new_old: ArrayLike) -> Array:
    """Express a ``(6, 6)`` covariance with respect to the fixed axes of another frame.

    R_new_old: ``(3, 3)`` rotation from the old axes to the new ones.
    """
    R = np.asarray(R_new_old, np.float64)
    J = np.zeros((6, 6))
    J[:3, :3] = J[3:, 3:] = R
    return J @ np.asarray(covariance_66, np.float64) @ J.T


def move_to_body_point(
    covariance_66: ArrayLike, T_map_camera: Array, T_camera_base: Array
) -> Array:
    """Return the covariance of ``T_map_base``, given that of ``T_map_camera``; both in fixed map axes.

    With the lever arm ``r = R_map_camera t_camera_base`` in map axes, a rotation error moves the base by
    ``delta_theta x r``. Hence ``J = [[I, -skew(r)], [0, I]]``, to first order in the rotation.
    """
    J = np.eye(6)
    J[:3, 3:] = -skew(T_map_camera[:3, :3] @ T_camera_base[:3, 3])
    return J @ np.asarray(covariance_66, np.float64) @ J.T


def pose_error_vectors(T_estimated_N44: ArrayLike, T_true_N44: ArrayLike) -> Array:
    """Return pose errors ``(N, 6)`` in fixed map axes, metres and radians, as the module defines them."""
    estimated, true = np.asarray(T_estimated_N44, np.float64), np.asarray(T_true_N44, np.float64)
    delta_t = estimated[:, :3, 3] - true[:, :3, 3]
    delta_theta = rotation_vector(estimated[:, :3, :3] @ np.swapaxes(true[:, :3, :3], -1, -2))
    return np.concatenate([delta_t, delta_theta], axis=1)


def turn_errors(error_N6: ArrayLike, R_new_old_N33: Array) -> Array:
    """Express pose errors ``(N, 6)`` with respect to other fixed axes, with one rotation for each error."""
    errors = np.asarray(error_N6, np.float64)
    vectors = (errors[:, :3], errors[:, 3:])
    return np.concatenate([np.einsum("nij,nj->ni", R_new_old_N33, v) for v in vectors], axis=1)


def vehicle_pose(
    T_map_camera: Array, covariance_66: ArrayLike, T_base_camera: Array
) -> tuple[Array, Array]:
    """The vehicle's pose ``T_map_base`` ``(4, 4)`` and its covariance ``(6, 6)``, from those of the camera.

    T_base_camera: ``(4, 4)`` mount of the camera. Both covariances are about fixed axes of the map, metres
    and radians.
    """
    T_camera_base = invert(T_base_camera)
    covariance = move_to_body_point(covariance_66, T_map_camera, T_camera_base)
    return T_map_camera @ T_camera_base, covariance


def residual_covariance(T_estimated_N44: ArrayLike, T_true_N44: ArrayLike) -> Array:
    """Return the second moment ``(6, 6)`` of the pose errors on held-out frames, in the *camera's* axes.

    Errors are larger along the optical axis than across it. In map axes this difference would be averaged
    away. Each estimate therefore rotates the result into map axes with its own rotation. The mean is not
    subtracted, so that a bias counts as uncertainty. Raises ValueError for fewer than ``MINIMUM_SAMPLES``.
    """
    estimated, true = np.asarray(T_estimated_N44, np.float64), np.asarray(T_true_N44, np.float64)
    if len(estimated) < MINIMUM_SAMPLES:
        raise ValueError(
            f"{len(estimated)} held-out frames are too few for a covariance; "
            f"at least {MINIMUM_SAMPLES} are needed"
        )
    errors = turn_errors(
        pose_error_vectors(estimated, true), np.swapaxes(estimated[:, :3, :3], -1, -2)
    )
    floor = np.diag([MINIMUM_SIGMA_M**2] * 3 + [MINIMUM_SIGMA_RAD**2] * 3)
    return errors.T @ errors / len(errors) + floor
