"""Convert the messages of the map filter, of its inputs and of GPS to the supervisor's types."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import PoseWithCovariance
from nav_msgs.msg import Odometry
from rclpy.node import Node
from sensor_msgs.msg import NavSatFix, NavSatStatus
from std_msgs.msg import Header

from rgsiam_ros.errors import FusionError
from rgsiam_ros.fusion.filter_check import MapPose
from rgsiam_ros.geometry.conversions import pose_from_message, stamp_to_ns
from rgsiam_ros.geometry.geodesy import Datum, LocalFrame

UNKNOWN = np.diag([1e6] * 3 + [10.0] * 3)
"""Covariance of a pose of which nothing is known, as the filter's initial one."""
LEVER_M = 2.0
"""Standard deviation for the antenna's place on the vehicle, metres: the heading is not known yet."""
WITHOUT_COVARIANCE_M = 10.0
"""Standard deviation of a fix that states none."""


def map_pose(header: Header, pose: PoseWithCovariance) -> MapPose:
    """The pose of a message. Raises ValueError for numbers that are not finite, or no rotation."""
    covariance_66 = np.array(pose.covariance, np.float64).reshape(6, 6)
    if not np.isfinite(covariance_66).all() or not (np.diag(covariance_66) > 0.0).all():
        raise ValueError("its covariance is not finite and positive")
    T_map_base = pose_from_message(pose.pose.position, pose.pose.orientation)
    return MapPose(stamp_to_ns(header.stamp), T_map_base, covariance_66)


def is_converted(message: Odometry) -> bool:
    """Whether navsat_transform could convert a fix. If it lacks a transform, it publishes exact zeros."""
    position = message.pose.pose.position
    return bool(
        np.isfinite([position.x, position.y]).all() and (position.x != 0.0 or position.y != 0.0)
    )


class FixConverter:
    """Converts fixes to positions in the map, of a vehicle whose heading is not known."""

    def __init__(self, node: Node) -> None:
        """Raises FusionError for a parameter ``datum`` that is none."""
        datum: Any = node.get_parameter("datum").value
        try:
            self._frame = LocalFrame(
                Datum(latitude_deg=datum[0], longitude_deg=datum[1], ellipsoidal_height_m=0.0)
            )
        except (ValueError, IndexError, TypeError) as error:
            raise FusionError(
                f"datum is {datum}: give latitude and longitude in degrees, as in navsat_transform.yaml"
            ) from error

    def pose(self, message: NavSatFix) -> MapPose | None:
        """The position of the antenna; None for a message without a fix."""
        place = np.array([message.latitude, message.longitude, message.altitude])
        if message.status.status == NavSatStatus.STATUS_NO_FIX or not np.isfinite(place[:2]).all():
            return None
        place[2] = np.nan_to_num(place[2])
        T_map_base = np.eye(4)
        T_map_base[:2, 3] = self._frame.from_geodetic(place)[:2]
        covariance_66 = UNKNOWN.copy()
        stated = np.array(message.position_covariance).reshape(3, 3)[:2, :2]
        known = message.position_covariance_type != NavSatFix.COVARIANCE_TYPE_UNKNOWN
        if not known or not np.isfinite(stated).all():
            stated = np.eye(2) * WITHOUT_COVARIANCE_M**2
        covariance_66[:2, :2] = stated + np.eye(2) * LEVER_M**2
        return MapPose(stamp_to_ns(message.header.stamp), T_map_base, covariance_66)
