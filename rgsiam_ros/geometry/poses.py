"""Rigid transforms as 4x4 matrices in float64, metres and radians.

``T_a_b`` is the pose of frame ``b`` in frame ``a``: it converts coordinates in ``b`` to coordinates in
``a``, so that ``T_a_c = T_a_b @ T_b_c``. The names of quaternions carry their order (wxyz or xyzw).
Rotation vectors describe rotation about *fixed* axes: ``R_perturbed = Exp(theta) @ R`` (REP-103).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation, Slerp

Array = NDArray[np.float64]

UNIT_QUATERNION_TOLERANCE = 1e-3
SMALLEST_SINE = 1e-9
"""If twice the sine of an angle is smaller, the angle is taken to be equal to its sine."""
NEARLY_HALF_TURN = 3.0
"""Angle in radians above which the sine is too small to give the rotation axis."""


def quaternion_xyzw_from_wxyz(quaternion_wxyz: ArrayLike) -> Array:
    """Reorder ``(..., 4)`` quaternions from wxyz to xyzw, the order of ROS and TUM."""
    return np.roll(np.asarray(quaternion_wxyz, np.float64), -1, axis=-1)


def quaternion_wxyz_from_xyzw(quaternion_xyzw: ArrayLike) -> Array:
    """Reorder ``(..., 4)`` quaternions from xyzw, the order of ROS and TUM, to wxyz."""
    return np.roll(np.asarray(quaternion_xyzw, np.float64), 1, axis=-1)


def pose_matrix(translation_m: ArrayLike, quaternion_wxyz: ArrayLike) -> Array:
    """Compose ``(..., 4, 4)`` poses from ``(..., 3)`` metres and ``(..., 4)`` unit quaternions.

    Quaternions are normalised. Raises ValueError when a number is not finite, or when the norm of a
    quaternion differs from 1 by more than ``UNIT_QUATERNION_TOLERANCE``.
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
    """Return the rotations of ``(..., 4, 4)`` poses as ``(..., 4)`` unit quaternions with ``w >= 0``."""
    poses = np.asarray(T, np.float64)
    flat_xyzw = Rotation.from_matrix(poses[..., :3, :3].reshape(-1, 3, 3)).as_quat()
    flat_xyzw = np.where(flat_xyzw[:, 3:] < 0.0, -flat_xyzw, flat_xyzw)
    return quaternion_wxyz_from_xyzw(flat_xyzw).reshape(*poses.shape[:-2], 4)


def invert(T: ArrayLike) -> Array:
    """Return the inverse of ``(..., 4, 4)`` poses: ``T_b_a`` of ``T_a_b``."""
    poses = np.asarray(T, np.float64)
    inverse = np.zeros_like(poses)
    R_transposed = np.swapaxes(poses[..., :3, :3], -1, -2)
    inverse[..., :3, :3] = R_transposed
    inverse[..., :3, 3] = -(R_transposed @ poses[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1.0
    return inverse


def rotation_vector(R: ArrayLike) -> Array:
    """Return the logarithm of ``(..., 3, 3)`` rotations: rotation vectors ``(..., 3)``, radians.

    It is faster than scipy. Only rotations of nearly half a turn are left to scipy.
    """
    matrices = np.asarray(R, np.float64)
    twice_sine, length, angle = _sine_and_angle(matrices)
    tiny = length < SMALLEST_SINE
    vectors = twice_sine * np.where(tiny, 0.5, angle / np.where(tiny, 1.0, length))[..., None]
    half_turn = angle > NEARLY_HALF_TURN
    if half_turn.any():  # the sine is too small to give the axis
        vectors[half_turn] = Rotation.from_matrix(matrices[half_turn]).as_rotvec()
    return vectors


def pose_errors(T_estimated: ArrayLike, T_true: ArrayLike) -> tuple[Array, Array]:
    """Return the position errors (metres) and rotation errors (radians) of ``(..., 4, 4)`` poses.

    A rotation error is the geodesic angle between the two rotations.
    """
    estimated, true = np.asarray(T_estimated, np.float64), np.asarray(T_true, np.float64)
    metres = np.linalg.norm(estimated[..., :3, 3] - true[..., :3, 3], axis=-1)
    R_between = estimated[..., :3, :3] @ np.swapaxes(true[..., :3, :3], -1, -2)
    return metres, rotation_angle(R_between)


def rotation_angle(R: ArrayLike) -> Array:
    """Return the angles of ``(..., 3, 3)`` rotations, radians. Small and large angles are accurate."""
    return _sine_and_angle(np.asarray(R, np.float64))[2]


def angles_between(R_a: ArrayLike, R_b: ArrayLike) -> Array:
    """Return the geodesic angles between ``(..., 3, 3)`` rotations, radians.

    It uses the trace only: faster than `rotation_angle`, but inaccurate for very small angles.
    """
    cosine = (np.einsum("...ij,...ij->...", np.asarray(R_a), np.asarray(R_b)) - 1.0) / 2.0
    return np.arccos(np.clip(cosine, -1.0, 1.0))


def check_pose(T: ArrayLike, tolerance: float = 1e-3) -> Array:
    """Return a ``(4, 4)`` pose as float64 with an exactly orthonormal rotation.

    Raises ValueError when T is not a finite rigid transform within `tolerance`.
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
    """Interpolate poses at other stamps: linearly in position, by slerp in rotation.

    stamps_ns: ``(N,)`` strictly increasing integer nanoseconds, N >= 2; T_N44: the poses at these
    stamps; at_ns: ``(M,)`` wanted stamps. Returns ``(M, 4, 4)``.
    Raises ValueError when a wanted stamp lies outside the range of stamps_ns.
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
    """Return the ``(3, 3)`` matrix of the cross product with a ``(3,)`` vector: ``skew(a) @ b == cross(a, b)``."""
    x, y, z = np.asarray(vector, np.float64)
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def _sine_and_angle(R: Array) -> tuple[Array, Array, Array]:
    """Return axis times twice the sine of the angle ``(..., 3)``, its length, and the angle (radians)."""
    antisymmetric = R - np.swapaxes(R, -1, -2)
    twice_sine = antisymmetric[..., [2, 0, 1], [1, 2, 0]]
    length = np.linalg.norm(twice_sine, axis=-1)
    return twice_sine, length, np.arctan2(length, np.trace(R, axis1=-2, axis2=-1) - 1.0)
