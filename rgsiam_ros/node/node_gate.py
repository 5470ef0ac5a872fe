"""The gate over time with its inputs from ROS: parameters, and odometry where a topic is given."""

from __future__ import annotations

import threading

from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data

from rgsiam_ros.errors import TransformUnavailableError
from rgsiam_ros.gating import GateAnswer, GateLimits, TemporalGate
from rgsiam_ros.geometry import Array, pose_matrix, quaternion_wxyz_from_xyzw
from rgsiam_ros.node.messages import stamp_ns
from rgsiam_ros.transforms import TransformTree

MODES = ("none", "speed", "odometry")
PARENT, CHILD = "odom", "base"


class NodeGate:
    """Passes everything with mode ``none``."""

    def __init__(self, node: Node, mode: str) -> None:
        self._node, self._mode = node, mode
        self._lock = threading.Lock()
        self._track = TransformTree()
        self._gate = TemporalGate(
            GateLimits(
                max_speed=node.get_parameter("gate_max_speed").value,
                max_turn_rate=node.get_parameter("gate_max_turn_rate").value,
                confidence=node.get_parameter("gate_confidence").value,
                recover_after=node.get_parameter("gate_recover_after").value,
            )
        )
        self._subscription = None
        if mode == "odometry":
            self._subscription = node.create_subscription(
                Odometry, "odometry", self._take, qos_profile_sensor_data
            )

    def check(self, at_ns: int, T_map_base: Array, covariance_66: Array) -> GateAnswer | None:
        """None with mode ``none``."""
        if self._mode == "none":
            return None
        return self._gate.check(at_ns, T_map_base, covariance_66, self._odometry_at(at_ns))

    def reset(self) -> None:
        """Forget where the vehicle was."""
        self._gate.reset()

    def close(self) -> None:
        """Stop listening."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)

    def _odometry_at(self, at_ns: int) -> Array | None:
        try:
            with self._lock:
                return self._track.lookup(PARENT, CHILD, at_ns)
        except TransformUnavailableError:
            return None

    def _take(self, message: Odometry) -> None:
        p, q = message.pose.pose.position, message.pose.pose.orientation
        try:
            quaternion_wxyz = quaternion_wxyz_from_xyzw([q.x, q.y, q.z, q.w])
            T_odom_base = pose_matrix([p.x, p.y, p.z], quaternion_wxyz)
        except ValueError as error:
            self._node.get_logger().warning(
                f"odometry ignored: {error}", throttle_duration_sec=10.0
            )
            return
        with self._lock:
            at_ns = stamp_ns(message.header.stamp)
            self._track.update(PARENT, CHILD, T_odom_base, at_ns, static=False)
