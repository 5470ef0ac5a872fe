"""Rigid transforms, float64, metres and radians.

``T_a_b`` is the 4x4 pose of frame ``b`` in frame ``a``: it takes coordinates in ``b`` to
coordinates in ``a``, so that ``T_a_c = T_a_b @ T_b_c``. Quaternions carry their order in the name.
Rotation vectors describe rotation about *fixed* axes: ``R_perturbed = Exp(theta) @ R`` (REP-103).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation, Slerp

Array = NDArray[np.float64]

UNIT_QUATERNION_TOLERANCE = 1e-3
SMALLEST_SINE = 1e-9
NEARLY_HALF_TURN = 3.0
"""Radians."""


def quaternion_xyzw_from_wxyz(quaternion_wxyz: ArrayLike) -> Array:
    """Reorder ``(..., 4)`` quaternions from w-first to the ROS and TUM order."""
    return np.roll(np.asarray(quaternion_wxyz, np.float64), -1, axis=-1)


def quaternion_wxyz_from_xyzw(quaternion_xyzw: ArrayLike) -> Array:
    """Reorder ``(..., 4)`` quaternions from the ROS and TUM order to w-first."""
    return np.roll(np.asarray(quaternion_xyzw, np.float64), 1, axis=-1)


def pose_matrix(translation_m: ArrayLike, quaternion_wxyz: ArrayLike) -> Array:
    """Compose ``(..., 3)`` metres and ``(..., 4)`` unit quaternions to ``(..., 4, 4)`` poses.

    Raises ValueError where a number is not finite or a quaternion's norm is off one by more than
    ``UNIT_QUATERNION_TOLERANCE``; smaller deviations are normalised away.
    """
    translation = np.asarray(translation_m, np.float64)
    q_wxyz = np.asarray(quaternion_wxyz, np.float64)
    check_quaternions(translation, q_wxyz)
    T = np.zeros((*q_wxyz.shape[:-1], 4, 4))
    flat_xyzw = quaternion_xyzw_from_wxyz(q_wxyz).reshape(-1, 4)
    matrices = Rotation.from_quat(flat_xyzw).as_matrix()
    T[..., :3, :3] = matrices.reshape(*q_wxyz.shape[:-1], 3, 3)
    T[..., :3, 3] = translation
    T[..., 3, 3] = 1.0
    return T


def check_quaternions(translation_m: Array, quaternion_wxyz: Array) -> None:
    """Raise ValueError unless all numbers are finite and the quaternions have norm 1.

    translation_m: ``(..., 3)``; quaternion_wxyz: ``(..., 4)``; the norm may be off by
    ``UNIT_QUATERNION_TOLERANCE``.
    """
    if not (np.isfinite(translation_m).all() and np.isfinite(quaternion_wxyz).all()):
        raise ValueError("a pose holds a non-finite number")
    norm = np.linalg.norm(quaternion_wxyz, axis=-1)
    if np.any(np.abs(norm - 1.0) > UNIT_QUATERNION_TOLERANCE):
        worst = float(norm.flat[np.argmax(np.abs(norm - 1.0))])
        raise ValueError(f"a quaternion has norm {worst:.4f}, not 1")


def quaternion_wxyz(T: ArrayLike) -> Array:
    """Rotation of ``(..., 4, 4)`` poses as ``(..., 4)`` unit quaternions with ``w >= 0``."""
    poses = np.asarray(T, np.float64)
    flat_xyzw = Rotation.from_matrix(poses[..., :3, :3].reshape(-1, 3, 3)).as_quat()
    flat_xyzw = np.where(flat_xyzw[:, 3:] < 0.0, -flat_xyzw, flat_xyzw)
    return quaternion_wxyz_from_xyzw(flat_xyzw).reshape(*poses.shape[:-2], 4)


def invert(T: ArrayLike) -> Array:
    """Inverse of ``(..., 4, 4)`` poses: ``T_a_b`` to ``T_b_a``."""
    poses = np.asarray(T, np.float64)
    inverse = np.zeros_like(poses)
    R_transposed = np.swapaxes(poses[..., :3, :3], -1, -2)
    inverse[..., :3, :3] = R_transposed
    inverse[..., :3, 3] = -(R_transposed @ poses[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1.0
    return inverse


def rotation_vector(R: ArrayLike) -> Array:
    """Logarithm of ``(..., 3, 3)`` rotations: ``(..., 3)`` radians. Quick, but for half turns."""
    matrices = np.asarray(R, np.float64)
    twice_sine, length, angle = _sine_and_angle(matrices)
    tiny = length < SMALLEST_SINE
    vectors = twice_sine * np.where(tiny, 0.5, angle / np.where(tiny, 1.0, length))[..., None]
    half_turn = angle > NEARLY_HALF_TURN
    if half_turn.any():  # the sine no longer knows the axis
        vectors[half_turn] = Rotation.from_matrix(matrices[half_turn]).as_rotvec()
    return vectors


def pose_errors(T_estimated: ArrayLike, T_true: ArrayLike) -> tuple[Array, Array]:
    """Distance of positions (metres) and geodesic angle (radians) of ``(..., 4, 4)`` poses."""
    estimated, true = np.asarray(T_estimated, np.float64), np.asarray(T_true, np.float64)
    metres = np.linalg.norm(estimated[..., :3, 3] - true[..., :3, 3], axis=-1)
    R_between = estimated[..., :3, :3] @ np.swapaxes(true[..., :3, :3], -1, -2)
    return metres, rotation_angle(R_between)


def rotation_angle(R: ArrayLike) -> Array:
    """Angle, radians, of ``(..., 3, 3)`` rotations: exact for small and for large ones, and quick."""
    return _sine_and_angle(np.asarray(R, np.float64))[2]


def angles_between(R_a: ArrayLike, R_b: ArrayLike) -> Array:
    """Geodesic angles, radians, between ``(..., 3, 3)`` rotations, by their traces: quick."""
    cosine = (np.einsum("...ij,...ij->...", np.asarray(R_a), np.asarray(R_b)) - 1.0) / 2.0
    return np.arccos(np.clip(cosine, -1.0, 1.0))


def check_pose(T: ArrayLike, tolerance: float = 1e-3) -> Array:
    """Return one ``(4, 4)`` pose as float64, its rotation made exactly orthonormal.

    Raises ValueError when it is not a finite rigid transform within ``tolerance``.
    """
    pose = np.asarray(T, np.float64)
    if pose.shape != (4, 4):
        raise ValueError(f"a pose has shape {pose.shape}, not (4, 4)")
    if not np.isfinite(pose).all():
        raise ValueError("a pose holds a non-finite number")
    if not np.allclose(pose[3], [0.0, 0.0, 0.0, 1.0], atol=tolerance):
        raise ValueError(f"the last row of a pose is {pose[3].tolist()}, not 0 0 0 1")
    R = pose[:3, :3]
    if np.abs(R @ R.T - np.eye(3)).max() > tolerance or np.linalg.det(R) < 0.0:
        raise ValueError("the rotation of a pose is not orthonormal and right-handed")
    checked = pose.copy()
    checked[:3, :3] = Rotation.from_matrix(R).as_matrix()
    checked[3] = [0.0, 0.0, 0.0, 1.0]
    return checked


def interpolate_poses(stamps_ns: ArrayLike, T_N44: ArrayLike, at_ns: ArrayLike) -> Array:
    """Poses at other stamps: linear in position, slerp in rotation.

    stamps_ns: ``(N,)`` strictly increasing integer nanoseconds, N >= 2; T_N44: the poses there;
    at_ns: ``(M,)`` within the range of stamps_ns. Returns ``(M, 4, 4)``.
    Raises ValueError outside the range.
    """
    stamps, at = np.asarray(stamps_ns, np.int64), np.asarray(at_ns, np.int64)
    poses = np.asarray(T_N44, np.float64)
    if at.size and (at.min() < stamps[0] or at.max() > stamps[-1]):
        raise ValueError("a stamp lies outside the range of the known poses")
    seconds, at_seconds = (stamps - stamps[0]) * 1e-9, (at - stamps[0]) * 1e-9
    result = np.tile(np.eye(4), (len(at), 1, 1))
    for axis in range(3):
        result[:, axis, 3] = np.interp(at_seconds, seconds, poses[:, axis, 3])
    if at.size:
        slerp = Slerp(seconds, Rotation.from_matrix(poses[:, :3, :3]))
        result[:, :3, :3] = slerp(np.clip(at_seconds, seconds[0], seconds[-1])).as_matrix()
    return result


def skew(vector: ArrayLike) -> Array:
    """``(3, 3)`` matrix with ``skew(a) @ b == cross(a, b)``."""
    x, y, z = np.asarray(vector, np.float64)
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def _sine_and_angle(R: Array) -> tuple[Array, Array, Array]:
    """Twice the sine of the angle along the axis ``(..., 3)``, its length, and the angle, radians."""
    turned = R - np.swapaxes(R, -1, -2)
    twice_sine = turned[..., [2, 0, 1], [1, 2, 0]]
    length = np.linalg.norm(twice_sine, axis=-1)
    return twice_sine, length, np.arctan2(length, np.trace(R, axis1=-2, axis2=-1) - 1.0)
