"""What is odd about the stream of images: lost ones, stamps, a second publisher, silence."""

from __future__ import annotations

from rclpy.node import Node

from rgsiam_ros.node.health import WARN, Health
from rgsiam_ros.node.log_throttle import LogThrottle
from rgsiam_ros.node.stamp_watch import StampWatch
from rgsiam_ros.node.stream_monitor import StreamMonitor


class InputWatch:
    """Counts and logs it. Not thread-safe: for the executor's thread."""

    def __init__(self, node: Node, health: Health, throttle: LogThrottle) -> None:
        self._node, self._health, self._throttle = node, health, throttle
        self._monitor, self._stamps = StreamMonitor(), StampWatch()
        self.topic = ""

    def forget(self) -> None:
        """As if no image had come yet."""
        self._monitor, self._stamps = StreamMonitor(), StampWatch()

    def why_useless(self, stamp_ns: int) -> str:
        """Take note of an image. Empty where it can be answered."""
        self._health.image()
        self._monitor.add(stamp_ns)
        complaint = self._monitor.complaint()
        if complaint:
            self._node.get_logger().warning(complaint, throttle_duration_sec=30.0)
        problem = self._stamps.problem(stamp_ns, self._node.get_clock().now().nanoseconds)
        if problem is None:
            return ""
        cause, words = problem
        if cause == "zero":
            return words
        self._health.count(f"stamp_{cause}")
        self._warn(words)
        return ""

    def findings(self) -> list[tuple[int, str]]:
        """What is wrong with the topic itself, by level; to be asked now and then."""
        if not self.topic:
            return []
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        if len(publishers) < 2:
            return []
        self._health.count("seconds_with_two_publishers")
        names = (p.node_namespace.rstrip("/") + "/" + p.node_name for p in publishers)
        words = (
            f"{len(publishers)} publishers on {self.topic} ({', '.join(sorted(names))}): images of "
            "several cameras give poses that jump; stop all but one, or remap image"
        )
        self._warn(words)
        return [(WARN, words)]

    def _warn(self, words: str) -> None:
        if self._throttle.may_log(words):
            self._node.get_logger().warning(f"{self.topic}: {words}")
