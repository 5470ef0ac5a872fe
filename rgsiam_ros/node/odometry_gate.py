"""The temporal gate of the node. Its limits come from parameters, and the motion comes from a topic."""

from __future__ import annotations

import threading

from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data

from rgsiam_ros.errors import TransformUnavailableError
from rgsiam_ros.geometry.conversions import checked_stamp_ns, pose_from_message
from rgsiam_ros.geometry.frame_tree import TransformTree
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.node.log_throttle import SHOWN, LogThrottle
from rgsiam_ros.uncertainty.gate import GateDecision, GateLimits, TemporalGate

PARENT, CHILD = "odom", "base"
"""Names of the two frames in the internal tree of the gate. They do not depend on the message's frame ids."""
LARGEST_VARIANCE_M2 = 1e3
"""Odometry with a larger variance in x or y is taken to hold speeds only, and no pose."""


class OdometryGate:
    """Decides whether a pose fits the poses before it and the odometry."""

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
        self._base_frame = node.get_parameter("base_frame").value.lstrip("/")
        self._odom_frame: str | None = None
        self._throttle = LogThrottle()
        self._topic = node.resolve_topic_name("odometry")
        self._subscription = None
        if mode == "odometry":
            self._subscription = node.create_subscription(
                Odometry, "odometry", self._take, qos_profile_sensor_data
            )

    def check(self, at_ns: int, T_map_base: Array, covariance_66: Array) -> GateDecision | None:
        """The decision on a pose. None in the mode ``none``, in which every pose passes.

        at_ns: stamp; T_map_base: ``(4, 4)``, metres; covariance_66: about fixed axes of the map, metres and
        radians.
        """
        if self._mode == "none":
            return None
        return self._gate.check(at_ns, T_map_base, covariance_66, self._odometry_at(at_ns))

    def reset(self) -> None:
        """Forget the earlier poses."""
        self._gate.reset()

    def close(self) -> None:
        """Unsubscribe from odometry."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)

    def _odometry_at(self, at_ns: int) -> Array | None:
        try:
            with self._lock:
                return self._track.lookup(PARENT, CHILD, at_ns)
        except TransformUnavailableError:
            return None

    def _take(self, message: Odometry) -> None:
        pose, problem = message.pose.pose, self._problem(message)
        try:
            T_odom_base = pose_from_message(pose.position, pose.orientation)
            at_ns = checked_stamp_ns(message.header.stamp)
        except ValueError as error:
            problem = "numbers", f"{error}; correct what is published there"
        if problem is not None:
            kind, reason = problem
            if self._throttle.may_log(kind):
                self._node.get_logger().warning(f"odometry ignored: {self._topic}: {reason}")
            return
        self._odom_frame = message.header.frame_id
        with self._lock:
            self._track.update(PARENT, CHILD, T_odom_base, at_ns, static=False)

    def _problem(self, message: Odometry) -> tuple[str, str] | None:
        """Kind and message of why the gate cannot use a message; None if it can."""
        child, frame = message.child_frame_id.lstrip("/"), message.header.frame_id
        if child and child != self._base_frame:
            return "child", (
                f"it is of {child:.{SHOWN}}, not of {self._base_frame}: remap odometry to a topic "
                f"of {self._base_frame}, or set base_frame"
            )
        if self._odom_frame is not None and frame != self._odom_frame:
            return "frame", (
                f"it is in {frame!r:.{SHOWN}}, and was in {self._odom_frame!r:.{SHOWN}}: let one node "
                "publish there, or clean up and configure this node"
            )
        variances = message.pose.covariance[0], message.pose.covariance[7]
        if not all(variance <= LARGEST_VARIANCE_M2 for variance in variances):
            return "variance", (
                f"its variances in x and y are {variances[0]:g} and {variances[1]:g} m\u00b2, so that it "
                "has no pose: remap odometry to a topic with one (a filter's odometry/filtered), or set "
                "gate to speed"
            )
        return None
