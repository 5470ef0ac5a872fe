"""Position and heading of a vehicle from GPS alone: by the way that it has driven between two fixes.

An EKF must not start with an unknown heading: it is linear at the heading that it begins with, so that an error of
the heading spreads its position sideways only. If the vehicle drives the other way, each later fix and each pose lies
far outside what the filter thinks possible, however large its sigmas are.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from transforms3d.euler import euler2mat, mat2euler

from rgsiam_ros.fusion.filter_check import MapPose, OdometryTrack
from rgsiam_ros.geometry.poses import Array

KEPT = 200
"""Number of fixes that are kept."""
LARGEST_YAW_SIGMA_RAD = 0.2
"""Largest standard deviation of the heading with which a filter may start."""
LARGEST_MISFIT_SIGMAS = 3.0
"""The way between the fixes may differ from the way by odometry by so many standard deviations."""


class GpsStart:
    """Keeps fixes until two of them give the heading."""

    def __init__(self) -> None:
        self._fixes: deque[MapPose] = deque(maxlen=KEPT)

    def add(self, fix: MapPose) -> None:
        """Keep a fix: a position with its covariance; the rotation is not used."""
        self._fixes.append(fix)

    def pose(self, wheels: OdometryTrack) -> MapPose | None:
        """The vehicle's pose at the newest fix. None while the vehicle has not driven far enough."""
        newest = self._fixes[-1] if self._fixes else None
        T_odom_now = None if newest is None else wheels.at(newest.stamp_ns)
        if newest is None or T_odom_now is None:
            return None
        for fix in self._fixes:
            T_odom_then = wheels.at(fix.stamp_ns)
            if T_odom_then is None:
                continue
            driven = T_odom_now[:2, 3] - T_odom_then[:2, 3]
            moved = newest.T_map_base[:2, 3] - fix.T_map_base[:2, 3]
            sigma_m = np.hypot(newest.horizontal_sigma_m, fix.horizontal_sigma_m) / np.sqrt(2.0)
            driven_m, moved_m = np.linalg.norm(driven), np.linalg.norm(moved)
            if driven_m * LARGEST_YAW_SIGMA_RAD < sigma_m:
                return None  # later fixes are nearer
            if abs(driven_m - moved_m) <= LARGEST_MISFIT_SIGMAS * sigma_m:
                turn = _direction(moved) - _direction(driven)
                yaw = turn + mat2euler(T_odom_now[:3, :3], axes="sxyz")[2]
                return _with_heading(newest, float(yaw), float(sigma_m / driven_m))
        return None


def _direction(way_2: Array) -> float:
    return float(np.arctan2(way_2[1], way_2[0]))


def _with_heading(fix: MapPose, yaw: float, sigma_rad: float) -> MapPose:
    T_map_base, covariance_66 = fix.T_map_base.copy(), fix.covariance_66.copy()
    T_map_base[:3, :3] = euler2mat(0.0, 0.0, yaw, axes="sxyz")
    covariance_66[5, :] = covariance_66[:, 5] = 0.0
    covariance_66[5, 5] = sigma_rad**2
    return MapPose(fix.stamp_ns, T_map_base, covariance_66)
