"""Publish what a person looks at: the map's points, and images with their matches."""

from __future__ import annotations

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from rgsiam_ros.localization.match_drawing import draw_estimate
from rgsiam_ros.localization.pose_estimate import PoseEstimate
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.node.guard import errors_in_log
from rgsiam_ros.node.log_throttle import LogThrottle
from rgsiam_ros.node.messages import ReceivedImage, cloud_message, image_message, stamp_message
from rgsiam_ros.node.qos import drawing_qos, latched_qos


class MapOutput:
    """Publishes ``~/map_points``, and ``~/matches`` while somebody subscribes to it.

    ``~/matches`` is a raw image, because RViz shows it without a plugin for compressed ones.
    """

    def __init__(self, node: LifecycleNode, throttle: LogThrottle) -> None:
        self._node, self._throttle = node, throttle
        self._points = node.create_lifecycle_publisher(PointCloud2, "~/map_points", latched_qos())
        self._matches = node.create_lifecycle_publisher(
            Image,
            "~/matches",
            drawing_qos(),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def publish_points(self, relocalizer: Relocalizer, map_frame: str) -> None:
        """Publish the map's points, or none if the geometric branch is not in use."""
        with errors_in_log(self._node, self._throttle, "nothing on ~/map_points"):
            now_ns = self._node.get_clock().now().nanoseconds
            header = Header(stamp=stamp_message(now_ns), frame_id=map_frame)
            points = relocalizer.points_in_map()
            if points is None:
                cloud = cloud_message(header, np.empty((0, 3)), np.empty(0, np.int64))
            else:
                cloud = cloud_message(header, points.position_P3, points.observations_P())
            self._points.publish(cloud)

    def show_matches(
        self, received: ReceivedImage, estimate: PoseEstimate, relocalizer: Relocalizer
    ) -> None:
        """Draw and publish an image with its matches, if somebody subscribes.

        Call it in the worker's thread, after the pose is published.
        """
        with errors_in_log(self._node, self._throttle, "nothing on ~/matches"):
            if estimate.matches is not None and self._matches.get_subscription_count():
                drawn = draw_estimate(relocalizer.fit(received.image()), estimate)
                self._matches.publish(image_message(received.message.header, drawn))
