"""Counters, rate, delays and ages of the node, and the problems that they show. This module needs no ROS."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rgsiam_ros.errors import (
    CameraError,
    EngineError,
    ImageError,
    RgsiamError,
    TransformUnavailableError,
)

WINDOW_S = 5.0
"""Rate and delays are computed over this time."""
TOTALS = ("received", "published", "lost", "gated", "rejected", "skipped")
"""The counters that are always shown, even when they are 0."""
OK, WARN, ERROR, STALE = range(4)
"""Levels as in ``diagnostic_msgs/DiagnosticStatus``."""
CAUSES = ((CameraError, "camera"), (TransformUnavailableError, "mount"), (EngineError, "engine"))
"""Words for errors in the names of the counters ``rejected_...``, see `cause_of`."""


@dataclass(frozen=True)
class Limits:
    """Thresholds of `Health.findings`."""

    min_rate: float
    """Lowest rate of poses, Hz. A lower rate is a WARN."""
    max_delay: float
    """Largest median time from image to pose, seconds. A longer time is a WARN."""
    max_age: float
    """Longest time without an image or without a pose, seconds. A longer time is an ERROR."""


class Health:
    """Counters, rate, delays and ages. Thread-safe."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter(dict.fromkeys(TOTALS, 0))
        self._poses: deque[tuple[float, float]] = deque()
        self._image_at = self._pose_at = self._since = now()
        self._had_pose = False

    def start(self) -> None:
        """Restart rate, delays and ages when the node becomes active. Keeps the counters."""
        with self._lock:
            self._poses.clear()
            self._image_at = self._pose_at = self._since = self._now()
            self._had_pose = False

    def count(self, *names: str) -> None:
        """Add one to each of these counters."""
        with self._lock:
            self._counts.update(names)

    def image(self) -> None:
        """Count a received image."""
        with self._lock:
            self._counts["received"] += 1
            self._image_at = self._now()

    def pose(self, delay_s: float) -> None:
        """Count a published pose. delay_s: seconds from image to pose, see `image_stream.delay_s`."""
        with self._lock:
            self._counts["published"] += 1
            self._pose_at, self._had_pose = self._now(), True
            self._poses.append((self._pose_at, delay_s))

    def missing_image(self, limits: Limits, topic: str) -> tuple[int, str] | None:
        """Level and message if no image came for too long, counted from `start` before the first; else None.

        topic: topic of the images, for the message.
        """
        with self._lock:
            since_s = self._now() - self._image_at
        return (ERROR, no_image(topic, since_s)) if since_s > limits.max_age else None

    def values(self) -> dict[str, str]:
        """Every figure and counter as text, by name, for ``/diagnostics``."""
        with self._lock:
            rate, delays = self._rate()
            age = f"{self._now() - self._pose_at:.2f}" if self._had_pose else "none yet"
            figures = {
                "rate_hz": f"{rate:.2f}",
                "delay_median_ms": f"{np.median(delays) * 1e3:.1f}" if delays else "none",
                "delay_largest_ms": f"{max(delays) * 1e3:.1f}" if delays else "none",
                "age_of_last_pose_s": age,
            }
            return figures | {name: str(count) for name, count in sorted(self._counts.items())}

    def findings(self, limits: Limits, last: tuple[int, str]) -> list[tuple[int, str]]:
        """Level and message of everything that is wrong while images arrive; empty if all is well.

        last: level and message of the last image.
        """
        with self._lock:
            now = self._now()
            findings = [last] if last[0] != OK else []
            if now - self._pose_at > limits.max_age:
                findings.append((ERROR, f"no pose for {now - self._pose_at:.0f} s"))
            rate, delays = self._rate()
            if now - self._since > WINDOW_S and rate < limits.min_rate:
                findings.append((WARN, f"poses at {rate:.1f} Hz, fewer than {limits.min_rate:g}"))
            if delays and np.median(delays) > limits.max_delay:
                findings.append(
                    (WARN, f"poses {np.median(delays):.2f} s late, over {limits.max_delay:g}")
                )
            return findings

    def _rate(self) -> tuple[float, list[float]]:
        now = self._now()
        while self._poses and self._poses[0][0] < now - WINDOW_S:
            self._poses.popleft()
        span = min(WINDOW_S, max(now - self._since, 1.0))
        return len(self._poses) / span, [delay for _, delay in self._poses]


def no_image(topic: str, seconds: float) -> str:
    """The message for a camera that sends no images."""
    return (
        f"no image on {topic} for {seconds:.0f} s: check that the camera runs and that topic, "
        "image_transport and QoS match"
    )


def cause_of(error: RgsiamError) -> str:
    """The word that names this error in the counters of rejected images."""
    if isinstance(error, ImageError):
        return f"image_{error.cause}"
    return next((name for kind, name in CAUSES if isinstance(error, kind)), "other")
