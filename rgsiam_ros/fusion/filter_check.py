"""Compare poses of the map filter with measured ones, as robot_localization compares them.

robot_localization rejects a pose by one Mahalanobis distance over all axes that it fuses, with the sum of its
own covariance and the pose's. A large sigma therefore does not help where the covariance is narrow: across the
direction in which the position is uncertain, or in the heading.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from transforms3d.euler import mat2euler

from rgsiam_ros.errors import TransformUnavailableError
from rgsiam_ros.geometry.frame_tree import TransformTree
from rgsiam_ros.geometry.poses import Array, invert
from rgsiam_ros.uncertainty.covariance import move_to_body_point
from rgsiam_ros.uncertainty.gate import GateLimits

PLANE, SPACE = (0, 1, 5), (0, 1, 2, 3, 4, 5)
"""The axes of a pose that a filter fuses in two and in three dimensions: x y z, roll pitch yaw."""
KEPT = 1024
"""Number of covariances that a track keeps."""
DRIFT = GateLimits()


@dataclass(frozen=True)
class MapPose:
    """A pose of the vehicle in the map, measured or filtered."""

    stamp_ns: int
    T_map_base: Array
    """``(4, 4)``, metres."""
    covariance_66: Array
    """About fixed axes of the map, x y z rotX rotY rotZ, metres and radians."""

    @property
    def horizontal_sigma_m(self) -> float:
        """Standard deviation of the position in the plane, both axes together, metres."""
        return float(np.sqrt(max(float(self.covariance_66[0, 0] + self.covariance_66[1, 1]), 0.0)))

    def widened(self, covariance_66: Array) -> MapPose:
        """The pose with so much more covariance, ``(6, 6)``."""
        return MapPose(self.stamp_ns, self.T_map_base, self.covariance_66 + covariance_66)


def rejection_distance(measured: MapPose, filtered: MapPose, axes: tuple[int, ...]) -> float:
    """The Mahalanobis distance, in sigmas, by which robot_localization decides on a pose.

    axes: those that the filter fuses, `PLANE` or `SPACE`. The angles are roll, pitch and yaw about fixed axes.
    """
    difference, covariance = _difference(measured, filtered, axes)
    return float(np.sqrt(max(float(difference @ np.linalg.solve(covariance, difference)), 0.0)))


def worst_part(measured: MapPose, filtered: MapPose, axes: tuple[int, ...]) -> str:
    """The part of the pose in which the two are more sigmas apart: ``position`` or ``heading``."""
    position = rejection_distance(measured, filtered, tuple(axis for axis in axes if axis < 3))
    return "position" if position >= rejection_distance(measured, filtered, (5,)) else "heading"


def _difference(measured: MapPose, filtered: MapPose, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """The difference of two poses over some axes, ``(len(axes),)``, and its covariance."""
    angles = [mat2euler(pose.T_map_base[:3, :3], axes="sxyz") for pose in (measured, filtered)]
    turned = (np.subtract(*angles) + np.pi) % (2.0 * np.pi) - np.pi
    moved = measured.T_map_base[:3, 3] - filtered.T_map_base[:3, 3]
    covariance = measured.covariance_66 + filtered.covariance_66
    return np.concatenate([moved, turned])[list(axes)], covariance[np.ix_(axes, axes)]


class FilterTrack:
    """The newest poses of a filter, with their covariances."""

    def __init__(self) -> None:
        self._tree = TransformTree()
        self._covariances: deque[tuple[int, Array]] = deque(maxlen=KEPT)

    def add(self, pose: MapPose) -> None:
        """Keep a pose. Raises ValueError if it is not finite."""
        self._tree.update("map", "base", pose.T_map_base, pose.stamp_ns, static=False)
        self._covariances.append((pose.stamp_ns, pose.covariance_66))

    def at(self, stamp_ns: int) -> MapPose | None:
        """The pose at a stamp, with the nearest covariance; None if the track does not reach there."""
        try:
            T = self._tree.lookup("map", "base", stamp_ns)
        except TransformUnavailableError:
            return None
        _, covariance = min(self._covariances, key=lambda item: abs(item[0] - stamp_ns))
        return MapPose(stamp_ns, T, covariance)


class OdometryTrack:
    """The newest poses by wheels and IMU, along which a pose in the map is carried on."""

    def __init__(self) -> None:
        self._tree = TransformTree()
        self._newest_ns: int | None = None

    def add(self, stamp_ns: int, T_odom_base: Array) -> None:
        """Keep a pose ``(4, 4)``, metres. Raises ValueError if it is not finite."""
        self._tree.update("odom", "base", T_odom_base, stamp_ns, static=False)
        self._newest_ns = stamp_ns

    def at(self, stamp_ns: int) -> Array | None:
        """``T_odom_base`` ``(4, 4)`` at a stamp, metres; None if the track does not reach there."""
        try:
            return self._tree.lookup("odom", "base", stamp_ns)
        except TransformUnavailableError:
            return None

    def carried(self, pose: MapPose) -> MapPose:
        """The pose carried on to the newest odometry; unchanged if odometry does not reach its stamp.

        The covariance grows with the drift of `rgsiam_ros.uncertainty.gate.GateLimits`.
        """
        if self._newest_ns is None or self._newest_ns <= pose.stamp_ns:
            return pose
        T_odom_then, T_odom_now = self.at(pose.stamp_ns), self.at(self._newest_ns)
        if T_odom_then is None or T_odom_now is None:
            return pose
        T_then_now = invert(T_odom_then) @ T_odom_now
        covariance = move_to_body_point(pose.covariance_66, pose.T_map_base, T_then_now)
        driven_m = float(np.linalg.norm(T_then_now[:3, 3]))
        drift = np.repeat([DRIFT.drift_per_m, DRIFT.drift_rad_per_m], 3) * driven_m
        return MapPose(
            self._newest_ns, pose.T_map_base @ T_then_now, covariance + np.diag(drift**2)
        )
