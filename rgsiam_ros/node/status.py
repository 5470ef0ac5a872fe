"""Publish ``~/status`` for each image, and a summary on ``/diagnostics`` once a second."""

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
from rgsiam_ros.localization.pose_estimate import PoseEstimate
from rgsiam_ros.node.camera import LiveCamera
from rgsiam_ros.node.health import ERROR, OK, STALE, WARN, Health, Limits
from rgsiam_ros.node.image_stream import ImageStream
from rgsiam_ros.node.messages import stamp_message
from rgsiam_ros.node.qos import latched_qos
from rgsiam_ros.uncertainty.gate import GateDecision

try:
    from diagnostic_updater import Updater
except ImportError:  # optional: it only adds its own parameters
    Updater = None

PERIOD_S = 1.0
TASK = "relocalization"
NO_HARDWARE = "none"
"""The hardware id while no bundle is loaded; diagnostic_updater's word for software."""


def publish_regularly(
    node: Node, summarise: Callable[[], DiagnosticStatus], task: str = TASK
) -> None:
    """Publish the result of `summarise` on ``/diagnostics`` once a second.

    If diagnostic_updater is installed, its parameter sets the period. The timer uses a steady clock, because
    simulated time may stand still.
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
        summary = summarise()
        for field in ("level", "message", "hardware_id", "values"):
            setattr(status, field, getattr(summary, field))
        return status

    updater = Updater(node, PERIOD_S)
    updater.node_name = node_name(node)
    updater.setHardwareID(NO_HARDWARE)  # `fill` replaces it; without one, the updater complains
    updater.timer.cancel()
    updater.add(task, fill)
    node.create_timer(updater.period, updater.force_update, clock=clock)


def node_name(node: Node) -> str:
    """The node's name with its namespace, without the leading slash."""
    return node.get_fully_qualified_name().lstrip("/")


UNCONFIGURED, INACTIVE, ACTIVE = "not configured", "inactive", "active"
Findings = Callable[[], list[tuple[int, str]]]
"""Returns the level and message of each problem."""


class StatusOutput:
    """Publishes ``~/status`` for each image and each change of state, and ``/diagnostics``. Thread-safe."""

    def __init__(
        self,
        node: Node,
        health: Health,
        images: ImageStream,
        camera: LiveCamera,
        findings: Findings,
    ) -> None:
        """findings: returns further findings for ``/diagnostics``."""
        self._node, self._health = node, health
        self._images, self._findings, self._camera = images, findings, camera
        self._lock = threading.Lock()
        self._identity: dict[str, str] = {}
        self._state, self._enabled = UNCONFIGURED, True
        self._failure = ""
        self._last: tuple[int, str] = (OK, "")
        self._values: dict[str, Any] = {}
        self._status = node.create_publisher(DiagnosticStatus, "~/status", latched_qos())
        publish_regularly(node, self._summary)
        self._publish_state()

    def set_identity(self, identity: dict[str, str]) -> None:
        """Set the values that identify bundle and engine."""
        with self._lock:
            self._identity = identity

    def set_state(self, state: str) -> None:
        """Set the node's state: `UNCONFIGURED`, `INACTIVE` or `ACTIVE`."""
        with self._lock:
            self._state, self._failure = state, ""
            if state == UNCONFIGURED:
                self._identity = {}
        self._restart()

    def set_failure(self, reason: str) -> None:
        """Report why the node could not be configured. It holds until the next change of state."""
        with self._lock:
            self._failure = reason
        self._publish_state()

    def set_enabled(self, enabled: bool) -> None:
        """Set whether images are processed."""
        with self._lock:
            self._enabled = enabled
        self._restart()

    def published(
        self,
        at_ns: int,
        estimate: PoseEstimate,
        covariance_66: Array,
        gate: GateDecision | None,
        delay: float,
    ) -> None:
        """Report a published pose. delay: seconds from image to pose."""
        self._health.pose(delay)
        self._publish_image(OK, "pose published", at_ns, values_of(estimate, covariance_66, gate))

    def lost(self, at_ns: int, estimate: PoseEstimate, reason: str) -> None:
        """Report that the vehicle is lost, so that no pose was published."""
        trusted = estimate.trust is None or estimate.trust >= 0.0
        cause = "frozen" if estimate.frozen else "answer" if trusted else "trust"
        self._health.count("lost", f"lost_{cause}")
        self._publish_image(WARN, reason, at_ns, values_of(estimate, estimate.covariance_66, None))

    def gated(
        self, at_ns: int, estimate: PoseEstimate, covariance_66: Array, gate: GateDecision
    ) -> None:
        """Report that the gate refused the pose."""
        self._health.count("gated")
        self._publish_image(
            WARN,
            f"gated: squared Mahalanobis distance {gate.square:.0f} to what was expected",
            at_ns,
            values_of(estimate, covariance_66, gate),
        )

    def rejected(self, at_ns: int | None, reason: str, cause: str) -> None:
        """Report an image without a pose. at_ns: None if its stamp is no time; cause: one word, for the counter."""
        self._health.count("rejected", f"rejected_{cause}")
        self._publish_image(ERROR, reason, at_ns, {})

    def _why_idle(self) -> tuple[int, str] | None:
        """Level and message if images are not processed."""
        if self._failure:
            return ERROR, f"{self._state}: {self._failure}"
        if self._state != ACTIVE:
            return STALE, self._state
        return None if self._enabled else (STALE, "disabled by ~/enable")

    def _restart(self) -> None:
        self._health.start()
        with self._lock:
            self._last, self._values = (OK, ""), {}
        self._publish_state()

    def _publish_state(self) -> None:
        with self._lock:
            level, message = self._why_idle() or (STALE, "no image yet")
        self._status.publish(self._message(level, message, {}))

    def _publish_image(
        self, level: int, message: str, at_ns: int | None, values: dict[str, Any]
    ) -> None:
        if at_ns is not None:
            values = {"stamp": stamp_text(at_ns), **values}
        with self._lock:
            if self._why_idle():
                return  # the image was still being processed when the node became idle
            self._last, self._values = (level, message), values
        self._status.publish(self._message(level, message, values))

    def _limits(self) -> Limits:
        names = ("diagnostics_min_rate", "diagnostics_max_delay", "diagnostics_max_age")
        return Limits(*(self._node.get_parameter(name).value for name in names))

    def _summary(self) -> DiagnosticStatus:
        limits, others = self._limits(), self._findings()
        with self._lock:
            idle, last, values = self._why_idle(), self._last, dict(self._values)
            values |= self._identity | {"camera_info": self._camera.state()}
        missing = None if idle else self._health.missing_image(limits, self._images.topic)
        if missing is not None:
            self._status.publish(self._message(*missing, {}))
        found = [missing] if missing else self._health.findings(limits, last)
        findings = [idle] if idle else [*found, *others]
        level = max((level for level, _ in findings), default=OK)
        text = "; ".join(m for _, m in sorted(findings, key=lambda item: -item[0]))
        return self._message(level, text or "poses published", values | self._health.values())

    def _message(self, level: int, message: str, values: dict[str, Any]) -> DiagnosticStatus:
        bundle = self._identity.get("bundle")
        return DiagnosticStatus(
            level=bytes([level]),
            name=f"{node_name(self._node)}: {TASK}",
            message=message,
            hardware_id=f"bundle {bundle}" if bundle else NO_HARDWARE,
            values=[KeyValue(key=name, value=str(value)) for name, value in values.items()],
        )


def values_of(
    estimate: PoseEstimate, covariance_66: Array, gate: GateDecision | None
) -> dict[str, Any]:
    """The figures of one estimate as text, by name.

    covariance_66: of the pose that is or would be published, about fixed axes of the map, metres and radians.
    """
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
    geometric = estimate.quality.geometric_quality
    if geometric is not None:
        values["inliers"] = str(geometric.inliers)
        values["matches"] = str(geometric.matches)
        values["residual_px"] = f"{geometric.residual_px:.2f}"
    if gate is not None:
        values["gate"] = gate.reason
        values["mahalanobis_squared"] = f"{gate.square:.2f}"
    return values
