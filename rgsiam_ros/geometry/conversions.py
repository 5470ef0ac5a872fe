"""Conversions between single poses and ROS messages, mount parameters and reports.

Arrays of poses are converted in `rgsiam_ros.geometry.poses`. The functions here take any object with the
fields of the ROS message, so that the core needs no ROS.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from transforms3d.affines import compose
from transforms3d.euler import mat2euler
from transforms3d.quaternions import mat2quat, quat2mat

from rgsiam_ros.geometry.poses import Array, check_quaternions

NANOSECONDS = 1_000_000_000
"""Number of nanoseconds in one second."""


def stamp_to_ns(stamp: Any) -> int:
    """Integer nanoseconds of a ``builtin_interfaces/Time``."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


LATEST_S = 2**31 - 1 - 24 * 3600
"""Latest stamp, seconds: a day before the end of the range of ``builtin_interfaces/Time``, so that sums fit."""


def checked_stamp_ns(stamp: Any) -> int:
    """As `stamp_to_ns`, for a stamp from outside. Raises ValueError unless it is a time, so that none is changed."""
    if not (0 <= stamp.sec <= LATEST_S and 0 <= stamp.nanosec < NANOSECONDS):
        raise ValueError(
            f"the stamp of {stamp.sec} s and {stamp.nanosec} ns is not a time: seconds go from 0 to {LATEST_S}, "
            "nanoseconds to 999999999"
        )
    return stamp_to_ns(stamp)


def stamp_text(stamp_ns: int) -> str:
    """Seconds with all nine decimals."""
    return f"{stamp_ns // NANOSECONDS}.{stamp_ns % NANOSECONDS:09d}"


def pose_from_xyzw(translation_m: Any, quaternion_xyzw: Any) -> Array:
    """``(4, 4)`` pose from three metres and a unit quaternion.

    Raises ValueError if a number is not finite or the quaternion's norm is not 1.
    """
    translation = np.asarray(translation_m, np.float64)
    q_wxyz = np.roll(np.asarray(quaternion_xyzw, np.float64), 1)
    check_quaternions(translation, q_wxyz)
    return compose(translation, quat2mat(q_wxyz), np.ones(3))


def pose_from_message(position: Any, orientation: Any) -> Array:
    """``(4, 4)`` pose from the fields of a ``geometry_msgs/Pose`` or ``Transform``.

    position: a Point or Vector3, metres; orientation: a Quaternion. Raises ValueError as `pose_from_xyzw`.
    """
    p, q = position, orientation
    return pose_from_xyzw([p.x, p.y, p.z], [q.x, q.y, q.z, q.w])


def quaternion_xyzw_of(T: Array) -> Array:
    """``(4,)`` unit quaternion x y z w, with w >= 0, of a ``(4, 4)`` pose."""
    return np.roll(mat2quat(T[:3, :3]), -1)


def roll_pitch_yaw_deg(T: Array) -> Array:
    """``(3,)`` roll, pitch and yaw of a ``(4, 4)`` pose, degrees, about fixed axes (REP-103)."""
    return np.degrees(mat2euler(T[:3, :3], axes="sxyz"))
