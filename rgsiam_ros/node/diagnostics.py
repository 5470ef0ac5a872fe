"""The node's entry on /diagnostics: through diagnostic_updater where it is installed, else the same message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile

from rgsiam_ros.node.messages import stamp_message

try:
    from diagnostic_updater import Updater
except ImportError:  # not a dependency: it brings no more than its parameters
    Updater = None

PERIOD_S = 1.0
TASK = "relocalization"


def publish_regularly(node: Node, summarise: Callable[[], DiagnosticStatus]) -> None:
    """Publish what `summarise` gives once a second, or in diagnostic_updater's period.

    The beat is of a steady clock: simulated time may stand still.
    """
    clock = Clock(clock_type=ClockType.STEADY_TIME)
    if Updater is None:
        publisher = node.create_publisher(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))

        def publish() -> None:
            array = DiagnosticArray(status=[summarise()])
            array.header.stamp = stamp_message(node.get_clock().now().nanoseconds)
            publisher.publish(array)

        node.create_timer(PERIOD_S, publish, clock=clock)
        return

    def fill(status: Any) -> Any:
        found = summarise()
        for field in ("level", "message", "hardware_id", "values"):
            setattr(status, field, getattr(found, field))
        return status

    updater = Updater(node, PERIOD_S)
    updater.node_name = node_name(node)
    updater.timer.cancel()
    updater.add(TASK, fill)
    node.create_timer(updater.period, updater.force_update, clock=clock)


def node_name(node: Node) -> str:
    """With its namespace, without the first slash."""
    return node.get_fully_qualified_name().lstrip("/")
