"""``~/status`` for each image, and a summary once a second on ``/diagnostics``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile

from rgsiam_ros.geometry.conversions import stamp_text
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.relocalizer import PoseEstimate
from rgsiam_ros.node.health import ERROR, OK, STALE, WARN, Health, Limits
from rgsiam_ros.node.messages import stamp_message
from rgsiam_ros.node.qos import latched_qos
from rgsiam_ros.uncertainty.gate import GateDecision

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


UNCONFIGURED, INACTIVE, ACTIVE = "not configured", "inactive", "active"
Findings = Callable[[], list[tuple[int, str]]]


class StatusOutput:
    """``~/status`` for each image and each change; ``/diagnostics`` once a second."""

    def __init__(
        self, node: Node, health: Health, topic: Callable[[], str], findings: Findings
    ) -> None:
        """topic: that images come from; findings: what else is wrong, asked once a second."""
        self._node, self._health = node, health
        self._topic, self._findings = topic, findings
        self._lock = threading.Lock()
        self._identity: dict[str, str] = {}
        self._state, self._enabled = UNCONFIGURED, True
        self._last: tuple[int, str] = (OK, "")
        self._values: dict[str, Any] = {}
        self._status = node.create_publisher(DiagnosticStatus, "~/status", latched_qos())
        publish_regularly(node, self._summary)
        self._say_state()

    def serving(self, identity: dict[str, str]) -> None:
        """What serves now."""
        with self._lock:
            self._identity = identity

    def state(self, state: str) -> None:
        """``not configured``, ``inactive`` or ``active``."""
        with self._lock:
            self._state = state
            if state == UNCONFIGURED:
                self._identity = {}
        self._begin()

    def enable(self, enabled: bool) -> None:
        """Whether images are answered."""
        with self._lock:
            self._enabled = enabled
        self._begin()

    def published(
        self,
        at_ns: int,
        estimate: PoseEstimate,
        covariance_66: Array,
        gate: GateDecision | None,
        delay: float,
    ) -> None:
        """A pose went out, so many seconds after its image was taken."""
        self._health.pose(delay)
        self._say(OK, "pose published", at_ns, values_of(estimate, covariance_66, gate))

    def lost(self, at_ns: int, estimate: PoseEstimate, reason: str) -> None:
        """No pose: it would not have been believed."""
        trusted = estimate.trust is None or estimate.trust >= 0.0
        cause = "frozen" if estimate.frozen else "answer" if trusted else "trust"
        self._health.count("lost", f"lost_{cause}")
        self._say(WARN, reason, at_ns, values_of(estimate, estimate.covariance_66, None))

    def gated(
        self, at_ns: int, estimate: PoseEstimate, covariance_66: Array, gate: GateDecision
    ) -> None:
        """No pose: the vehicle cannot have come there."""
        self._health.count("gated")
        self._say(
            WARN,
            f"gated: squared Mahalanobis distance {gate.square:.0f} to what was expected",
            at_ns,
            values_of(estimate, covariance_66, gate),
        )

    def rejected(self, at_ns: int, reason: str, cause: str) -> None:
        """No pose: something is wrong with the image or its surroundings. cause: one word."""
        self._health.count("rejected", f"rejected_{cause}")
        self._say(ERROR, reason, at_ns, {})

    def _why_idle(self) -> str:
        if self._state != ACTIVE:
            return self._state
        return "" if self._enabled else "disabled by ~/enable"

    def _begin(self) -> None:
        self._health.start()
        with self._lock:
            self._last, self._values = (OK, ""), {}
        self._say_state()

    def _say_state(self) -> None:
        with self._lock:
            message = self._why_idle() or "no image yet"
        self._status.publish(self._message(STALE, message, {}))

    def _say(self, level: int, message: str, at_ns: int, values: dict[str, Any]) -> None:
        values = {"stamp": stamp_text(at_ns), **values}
        with self._lock:
            if self._why_idle():
                return  # the last image came to its end after that
            self._last, self._values = (level, message), values
        self._status.publish(self._message(level, message, values))

    def _limits(self) -> Limits:
        names = ("diagnostics_min_rate", "diagnostics_max_delay", "diagnostics_max_age")
        return Limits(*(self._node.get_parameter(name).value for name in names))

    def _summary(self) -> DiagnosticStatus:
        limits, others = self._limits(), self._findings()
        with self._lock:
            idle, last, values = self._why_idle(), self._last, dict(self._values)
            values |= self._identity
        found = [] if idle else self._health.judge(limits, last, self._topic())
        if not idle and self._health.since_image() > limits.max_age:
            self._status.publish(self._message(*found[0], {}))
        found = [(STALE, idle)] if idle else [*found, *others]
        level = max((level for level, _ in found), default=OK)
        said = "; ".join(m for _, m in sorted(found, key=lambda item: -item[0]))
        return self._message(level, said or "poses published", values | self._health.values())

    def _message(self, level: int, message: str, values: dict[str, Any]) -> DiagnosticStatus:
        bundle = self._identity.get("bundle")
        return DiagnosticStatus(
            level=bytes([level]),
            name=f"{node_name(self._node)}: {TASK}",
            message=message,
            hardware_id=f"bundle {bundle}" if bundle else "",
            values=[KeyValue(key=name, value=str(value)) for name, value in values.items()],
        )


def values_of(
    estimate: PoseEstimate, covariance_66: Array, gate: GateDecision | None
) -> dict[str, Any]:
    """The figures of one answer. covariance_66: of what is or would be published."""
    sigma = np.sqrt(np.maximum(np.diag(covariance_66), 0.0))
    values: dict[str, Any] = {
        "branch": estimate.branch,
        "trust": "not calibrated" if estimate.trust is None else f"{estimate.trust:.3f}",
        "frozen": estimate.frozen,
        "feature_distance": f"{estimate.quality.feature_distance:.3f}",
        "sigma_position_m": f"{np.linalg.norm(sigma[:3]):.3f}",
        "sigma_rotation_deg": f"{np.degrees(np.linalg.norm(sigma[3:])):.3f}",
        "time_ms": f"{sum(estimate.timings_ms.values()):.1f}",
    }
    if estimate.refined_quality is not None:
        apart = estimate.refined_quality
        values["support"] = f"{apart.support:.3f}"
        values["branches_apart_m"] = f"{apart.absolute_m:.3f}"
        values["branches_apart_deg"] = f"{np.degrees(apart.absolute_rad):.3f}"
    if gate is not None:
        values["gate"] = gate.reason
        values["mahalanobis_squared"] = f"{gate.square:.2f}"
    return values
