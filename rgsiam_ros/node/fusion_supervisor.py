"""The lifecycle node `fusion_supervisor`: it starts, sets and watches robot_localization's map filter.

The decisions are made by `rgsiam_ros.fusion.supervisor`. Visual poses and converted fixes
pass through this node to the filter.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, State, TransitionCallbackReturn
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import NavSatFix
from std_msgs.msg import Header
from std_srvs.srv import Empty

from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.fusion.filter_check import MapPose
from rgsiam_ros.fusion.supervisor import FilterSupervisor, Phase
from rgsiam_ros.geometry.conversions import pose_from_message, stamp_to_ns
from rgsiam_ros.node.fusion_messages import FixConverter, is_converted, map_pose
from rgsiam_ros.node.fusion_parameters import declare, limits
from rgsiam_ros.node.health import ERROR, OK, STALE, WARN
from rgsiam_ros.node.log_throttle import LogThrottle
from rgsiam_ros.node.messages import pose_with_covariance_message, stamp_message
from rgsiam_ros.node.qos import pose_qos
from rgsiam_ros.node.status import node_name, publish_regularly

NAME = "fusion_supervisor"
TASK = "map filter"
TICK_S = 0.1
LONGEST_WAIT_S = 0.2
LEVELS = {"info": OK, "warning": WARN, "error": ERROR}


class FusionSupervisorNode(LifecycleNode):
    """Connects `FilterSupervisor` with topics, the filter's service ``enable``, and ``/diagnostics``."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__(NAME, **node_options)
        declare(self)
        self._supervisor: FilterSupervisor | None = None
        self._now_s = 0.0
        self._zeros = 0
        self._throttle = LogThrottle()
        self._inputs: list[Any] = []
        self._set_pose = self.create_publisher(
            PoseWithCovarianceStamped, "set_pose", QoSProfile(depth=1)
        )
        self._gps = self.create_publisher(Odometry, "gps/odometry", QoSProfile(depth=10))
        self._poses = self.create_publisher(PoseWithCovarianceStamped, "pose/checked", pose_qos())
        self._enable = self.create_client(Empty, "enable")
        publish_regularly(self, self._summary, TASK)

    def on_configure(self, state: State) -> TransitionCallbackReturn:
        """Read the parameters and subscribe."""
        try:
            self._limits = limits(self)
            self._fixes = FixConverter(self) if self._limits.uses_gps else None
        except RgsiamError as error:
            self.get_logger().error(f"cannot configure: {error}")
            return TransitionCallbackReturn.FAILURE
        self._map_frame = self.get_parameter("map_frame").value.lstrip("/")
        pose, sensor = pose_qos(), qos_profile_sensor_data
        topics: list[tuple[Any, str, Callable[[Any], None], Any]] = [
            (PoseWithCovarianceStamped, "pose", self._on_visual, pose),
            (PoseWithCovarianceStamped, "initialpose", self._on_hint, pose),
            (Odometry, "odometry/map", self._on_filtered, sensor),
            (Odometry, "odometry/odom", self._on_odometry, sensor),
        ]
        if self._fixes is not None:
            topics.append((NavSatFix, "gps/fix", self._on_fix, sensor))
            topics.append((Odometry, "gps/unchecked", self._on_converted, sensor))
        self._inputs = [
            self.create_subscription(kind, name, self._while_active(take), qos)
            for kind, name, take, qos in topics
        ]
        self._timer = self.create_timer(TICK_S, self._tick)
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: State) -> TransitionCallbackReturn:
        """Begin to supervise: the map filter is held back until there is a visual pose."""
        self._now_s = self._now()
        self._supervisor = FilterSupervisor(self._limits, self._now_s)
        return super().on_activate(state)

    def on_deactivate(self, state: State) -> TransitionCallbackReturn:
        """Leave the map filter alone. No fix passes."""
        self._supervisor = None
        return super().on_deactivate(state)

    def on_cleanup(self, state: State) -> TransitionCallbackReturn:
        """Unsubscribe."""
        self._supervisor = None
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        if self._inputs:
            self.destroy_timer(self._timer)
        self._inputs = []
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: State) -> TransitionCallbackReturn:
        """As `on_cleanup`."""
        return self.on_cleanup(state)

    def autostart(self) -> None:
        """Configure and activate, if the parameter ``autostart`` is set."""
        if not self.get_parameter("autostart").value:
            return
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _now(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9

    def _while_active(self, take: Callable[[Any], None]) -> Callable[[Any], None]:
        """`take`, but nothing while the node is not active. A message that cannot be used is logged."""

        def guarded(message: Any) -> None:
            if self._supervisor is None:
                return
            try:
                take(message)
            except ValueError as error:
                self._warn(f"a message is ignored: {error}")
            self._log_events()

        return guarded

    def _on_visual(self, message: PoseWithCovarianceStamped) -> None:
        self._core.add_visual(self._in_map(message, message.header), self._now())
        if self._core.passes:
            self._poses.publish(message)

    def _on_hint(self, message: PoseWithCovarianceStamped) -> None:
        self._core.add_hint(self._in_map(message, message.header), self._now())

    def _on_filtered(self, message: Odometry) -> None:
        speed_m_s = message.twist.twist.linear.x
        self._core.add_filtered(self._in_map(message, message.header), speed_m_s, self._now())

    def _on_odometry(self, message: Odometry) -> None:
        pose = message.pose.pose
        T_odom_base = pose_from_message(pose.position, pose.orientation)
        speed_m_s = message.twist.twist.linear.x
        self._core.add_odometry(stamp_to_ns(message.header.stamp), T_odom_base, speed_m_s)

    def _on_fix(self, message: NavSatFix) -> None:
        assert self._fixes is not None
        pose = self._fixes.pose(message)
        if pose is not None:
            self._core.add_fix(pose, self._now())

    def _on_converted(self, message: Odometry) -> None:
        """Pass a converted fix on to the filter, unless it is the zero of a conversion that failed."""
        if not is_converted(message):
            self._zeros += 1
            self._warn(
                "a fix was converted to zero, because navsat_transform lacks a transform: it is not fused"
            )
        elif self._core.passes:
            self._gps.publish(message)

    @property
    def _core(self) -> FilterSupervisor:
        assert self._supervisor is not None
        return self._supervisor

    def _in_map(self, message: Any, header: Header) -> MapPose:
        """The pose of a message. Raises ValueError if it is not in the map frame, or is no pose."""
        if header.frame_id.lstrip("/") != self._map_frame:
            raise ValueError(f"it is in {header.frame_id!r}, not in {self._map_frame!r}")
        return map_pose(header, message.pose)

    def _tick(self) -> None:
        if self._supervisor is None:
            return
        now_s = self._now()
        if now_s < self._now_s:
            self.get_logger().warning("the clock went back: the map filter is supervised anew")
            self._supervisor = FilterSupervisor(self._limits, now_s)
        self._now_s = now_s
        reachable = self._set_pose.get_subscription_count() > 0 and self._enable.service_is_ready()
        offer = self._supervisor.tick(now_s, reachable=reachable)
        if offer is not None:
            header = Header(frame_id=self._map_frame, stamp=stamp_message(offer.pose.stamp_ns))
            pose = offer.pose
            self._set_pose.publish(
                pose_with_covariance_message(header, pose.T_map_base, pose.covariance_66)
            )
            if offer.enable:
                self._enable.call_async(Empty.Request())
        self._log_events()

    def _log_events(self) -> None:
        log = self.get_logger()
        for level, text in self._core.take_events():
            # rclpy wants one level for each line that logs
            if level == "error":
                log.error(text)
            elif level == "warning":
                log.warning(text)
            else:
                log.info(text)

    def _warn(self, text: str) -> None:
        if self._throttle.may_log(text):
            self.get_logger().warning(text)

    def _summary(self) -> DiagnosticStatus:
        core = self._supervisor
        values: dict[str, Any] = {}
        if core is None:
            level, message = STALE, "not active"
        else:
            found = core.findings(self._now())
            level = max((LEVELS[kind] for kind, _ in found), default=OK)
            message = (
                "; ".join(text for _, text in found) or "the map filter takes the visual poses"
            )
            values = {"phase": core.phase.value, "rejected_in_row": core.rejected_in_row}
            values |= {**core.counts, "zero_fixes": self._zeros}
            if core.phase is not Phase.WAITING:
                values["started_from"] = core.source
        return DiagnosticStatus(
            level=bytes([level]),
            name=f"{node_name(self)}: {TASK}",
            message=message,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )


def main(arguments: list[str] | None = None) -> None:
    """Run the node until SIGINT or SIGTERM."""
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    node = FusionSupervisorNode()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        node.autostart()
        while not stop.is_set():
            executor.spin_once(timeout_sec=LONGEST_WAIT_S)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
