"""What the node says of itself: a status for each image, and a summary on /diagnostics."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from rclpy.qos import QoSProfile

from rgsiam_ros.gating import GateAnswer
from rgsiam_ros.geometry import Array
from rgsiam_ros.node.messages import stamp_message
from rgsiam_ros.relocalizer import PoseEstimate

PERIOD_S = 1.0
OK, WARN, ERROR, STALE = (
    DiagnosticStatus.OK,
    DiagnosticStatus.WARN,
    DiagnosticStatus.ERROR,
    DiagnosticStatus.STALE,
)


@dataclass
class Counters:
    """What became of the images that were worked on."""

    published: int = 0
    lost: int = 0
    gated: int = 0
    rejected: int = 0


class StatusOutput:
    """``~/status`` for each image that was worked on; ``/diagnostics`` once a second."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.counters = Counters()
        self._lock = threading.Lock()
        self._hardware = ""
        self._last: tuple[bytes, str] = (STALE, "not configured")
        self._fresh = False
        self._values: dict[str, Any] = {}
        self._status = node.create_publisher(DiagnosticStatus, "~/status", QoSProfile(depth=10))
        self._diagnostics = node.create_publisher(
            DiagnosticArray, "/diagnostics", QoSProfile(depth=10)
        )
        node.create_timer(PERIOD_S, self._summarise)

    def configured(self, bundle_name: str) -> None:
        """A bundle is loaded."""
        with self._lock:
            self._hardware = f"bundle {bundle_name}"
            self._last = (STALE, "no image yet")

    def unconfigured(self) -> None:
        """No bundle is loaded."""
        with self._lock:
            self._hardware, self._last = "", (STALE, "not configured")

    def published(
        self, at_ns: int, estimate: PoseEstimate, covariance_66: Array, gate: GateAnswer | None
    ) -> None:
        """A pose went out."""
        self.counters.published += 1
        self._say(OK, "pose published", at_ns, values_of(estimate, covariance_66, gate))

    def lost(self, at_ns: int, estimate: PoseEstimate, reason: str) -> None:
        """No pose: it would not have been believed."""
        self.counters.lost += 1
        self._say(WARN, reason, at_ns, values_of(estimate, estimate.covariance_66, None))

    def gated(
        self, at_ns: int, estimate: PoseEstimate, covariance_66: Array, gate: GateAnswer
    ) -> None:
        """No pose: the vehicle cannot have come there."""
        self.counters.gated += 1
        self._say(
            WARN,
            f"gated: squared Mahalanobis distance {gate.square:.0f} to what was expected",
            at_ns,
            values_of(estimate, covariance_66, gate),
        )

    def rejected(self, at_ns: int, reason: str) -> None:
        """No pose: something is wrong with the image or its surroundings."""
        self.counters.rejected += 1
        self._say(ERROR, reason, at_ns, {})

    def _say(self, level: bytes, message: str, at_ns: int, values: dict[str, Any]) -> None:
        values = {"stamp": f"{at_ns // 10**9}.{at_ns % 10**9:09d}", **values}
        with self._lock:
            self._last, self._values, self._fresh = (level, message), values, True
        self._status.publish(self._message(level, message, values))

    def _summarise(self) -> None:
        with self._lock:
            (level, message), values = self._last, dict(self._values)
            if not self._fresh and level != STALE:
                level, message = STALE, f"no image in the last second; before that: {message}"
            self._fresh = False
        array = DiagnosticArray(
            status=[self._message(level, message, values | asdict(self.counters))]
        )
        array.header.stamp = stamp_message(self._node.get_clock().now().nanoseconds)
        self._diagnostics.publish(array)

    def _message(self, level: bytes, message: str, values: dict[str, Any]) -> DiagnosticStatus:
        return DiagnosticStatus(
            level=level,
            name=f"{self._node.get_fully_qualified_name().lstrip('/')}: relocalization",
            message=message,
            hardware_id=self._hardware,
            values=[KeyValue(key=name, value=str(value)) for name, value in values.items()],
        )


def values_of(
    estimate: PoseEstimate, covariance_66: Array, gate: GateAnswer | None
) -> dict[str, Any]:
    """The figures of one answer. covariance_66: of what is or would be published."""
    sigma = np.sqrt(np.maximum(np.diag(covariance_66), 0.0))
    values: dict[str, Any] = {
        "branch": estimate.branch,
        "trust": "not calibrated" if estimate.trust is None else f"{estimate.trust:.3f}",
        "frozen": estimate.frozen,
        "feature_distance": f"{estimate.evidence.feature_distance:.3f}",
        "sigma_position_m": f"{np.linalg.norm(sigma[:3]):.3f}",
        "sigma_rotation_deg": f"{np.degrees(np.linalg.norm(sigma[3:])):.3f}",
        "time_ms": f"{sum(estimate.timings_ms.values()):.1f}",
    }
    if estimate.disagreement is not None:
        apart = estimate.disagreement
        values["support"] = f"{apart.support:.3f}"
        values["branches_apart_m"] = f"{apart.absolute_m:.3f}"
        values["branches_apart_deg"] = f"{np.degrees(apart.absolute_rad):.3f}"
    if gate is not None:
        values["gate"] = gate.reason
        values["mahalanobis_squared"] = f"{gate.square:.2f}"
    return values
