"""The topic ``initialpose``: a pose that a person gives, near which the relocalizer then looks."""

from __future__ import annotations

import threading

from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.node import Node

from rgsiam_ros.geometry.conversions import pose_from_message
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.node.qos import pose_qos


class PoseHint:
    """Keeps the newest hint until the relocalizer takes it, in the worker's thread."""

    def __init__(self, node: Node, map_frame: str) -> None:
        self._node, self._map_frame = node, map_frame
        self._lock = threading.Lock()
        self._T_map_base: Array | None = None
        self.subscription = node.create_subscription(
            PoseWithCovarianceStamped, "initialpose", self._take, pose_qos()
        )

    def give(self, relocalizer: Relocalizer, T_base_camera: Array) -> None:
        """Tell the relocalizer, before its next image. T_base_camera: ``(4, 4)`` mount, metres."""
        with self._lock:
            T_map_base, self._T_map_base = self._T_map_base, None
        if T_map_base is not None and not relocalizer.expect(T_map_base @ T_base_camera):
            self._node.get_logger().warning(
                "the hint has no effect: only the geometric branch (refined) can use one"
            )

    def _take(self, message: PoseWithCovarianceStamped) -> None:
        frame = message.header.frame_id.lstrip("/")
        log = self._node.get_logger()
        if frame != self._map_frame.lstrip("/"):
            log.warning(
                f"the hint is ignored: it is in {frame!r}, not in {self._map_frame!r}. In RViz, set the "
                "fixed frame to the map"
            )
            return
        pose = message.pose.pose
        try:
            T_map_base = pose_from_message(pose.position, pose.orientation)
        except ValueError as error:
            log.warning(f"the hint is ignored: {error}")
            return
        with self._lock:
            self._T_map_base = T_map_base
        x, y = T_map_base[:2, 3]
        log.info(f"hint: looking near x {x:.1f}, y {y:.1f} m for the next images")
