"""The robust mean of several estimates of one pose."""

from __future__ import annotations

import cv2
import numpy as np

from rgsiam_ros.geometry.poses import Array, rotation_vector

ITERATIONS = 5


def robust_mean(T_K44: Array, agree_m: float, metres_per_radian: float) -> Array:
    """Mean ``(4, 4)`` of K poses, of which some may be far off.

    It starts from the pose that the others support most. Positions are then averaged linearly and rotations
    on SO(3), with Cauchy weights of the distance from the mean. agree_m: distance at which two poses still
    support each other; metres_per_radian: metres that count as much as a rotation by one radian.
    """

    def distance(T: Array) -> tuple[Array, Array]:
        """Distance of each pose from poses ``(..., 4, 4)``, and the rotation vector from there."""
        metres = np.linalg.norm(T_K44[:, :3, 3] - T[..., :3, 3], axis=-1)
        turn = rotation_vector(T_K44[:, :3, :3] @ np.swapaxes(T[..., :3, :3], -1, -2))
        return (metres + metres_per_radian * np.linalg.norm(turn, axis=-1)) / agree_m, turn

    apart, _ = distance(T_K44[:, None])
    mean = T_K44[np.argmax(np.exp(-0.5 * apart**2).sum(axis=1))].copy()
    for _ in range(ITERATIONS):
        away, turn = distance(mean)
        weight = 1.0 / (1.0 + away**2)
        weight /= weight.sum()
        mean[:3, :3] = cv2.Rodrigues(weight @ turn)[0] @ mean[:3, :3]
        mean[:3, 3] = weight @ T_K44[:, :3, 3]
    return mean
