"""Publish poses on the node's topics."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import NavSatFix, NavSatStatus
from std_msgs.msg import Header

from rgsiam_ros.geometry.geodesy import Datum, LocalFrame
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.node.messages import pose_message, pose_with_covariance_message, stamp_message
from rgsiam_ros.node.qos import pose_qos


class PoseOutput:
    """Publishes a pose as pose, as pose with covariance, and as fix if the map has a datum."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._pose = self._publisher(PoseStamped, "~/pose")
        self._pose_with_covariance = self._publisher(
            PoseWithCovarianceStamped, "~/pose_with_covariance"
        )
        self._fix: LifecyclePublisher | None = None
        self._local_frame: LocalFrame | None = None
        self._map_frame = self._base_frame = ""

    def configure(self, map_frame: str, base_frame: str, datum: Datum | None) -> None:
        """Set the frames, and the datum of the map. datum: None publishes no fix."""
        self._map_frame, self._base_frame = map_frame, base_frame
        self._local_frame = None if datum is None else LocalFrame(datum)
        if datum is not None and self._fix is None:
            self._fix = self._publisher(NavSatFix, "~/fix")

    def close(self) -> None:
        """Publish no fix any more."""
        fix, self._fix, self._local_frame = self._fix, None, None
        if fix is not None:
            self._node.destroy_lifecycle_publisher(fix)

    def _publisher(self, kind: type, topic: str) -> LifecyclePublisher:
        return self._node.create_lifecycle_publisher(
            kind,
            topic,
            pose_qos(),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def publish(self, at_ns: int, T_map_base: Array, covariance_66: Array) -> None:
        """Publish a pose on all topics.

        at_ns: the image's stamp; T_map_base: ``(4, 4)``, metres; covariance_66: about fixed axes of the map,
        x y z rotX rotY rotZ, metres and radians.
        """
        header = Header(stamp=stamp_message(at_ns), frame_id=self._map_frame)
        self._pose.publish(pose_message(header, T_map_base))
        self._pose_with_covariance.publish(
            pose_with_covariance_message(header, T_map_base, covariance_66)
        )
        if self._local_frame is not None and self._fix is not None:
            place = self._local_frame.to_geodetic(T_map_base[:3, 3])
            self._fix.publish(fix_message(at_ns, self._base_frame, place, covariance_66[:3, :3]))


def fix_message(
    at_ns: int, frame_id: str, latitude_longitude_height: Array, covariance_33: Array
) -> NavSatFix:
    """A NavSatFix.

    latitude_longitude_height: ``(3,)`` degrees, degrees, and metres above the ellipsoid; covariance_33:
    ``(3, 3)`` east, north, up, square metres.
    """
    fix = NavSatFix(header=Header(stamp=stamp_message(at_ns), frame_id=frame_id))
    fix.status.status, fix.status.service = NavSatStatus.STATUS_FIX, 0
    fix.latitude, fix.longitude, fix.altitude = (float(v) for v in latitude_longitude_height)
    fix.position_covariance = np.asarray(covariance_33, np.float64).ravel()
    fix.position_covariance_type = NavSatFix.COVARIANCE_TYPE_KNOWN
    return fix
