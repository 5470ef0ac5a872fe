"""How the node fares: counters, rate, delay, ages, and what to think of them. No ROS."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

WINDOW_S = 5.0
TOTALS = ("received", "published", "lost", "gated", "rejected", "skipped")
OK, WARN, ERROR, STALE = range(4)
"""As in ``diagnostic_msgs/DiagnosticStatus``."""


@dataclass(frozen=True)
class Limits:
    """Thresholds of `Health.judge`."""

    min_rate: float
    """Hz of poses; less is a warning."""
    max_delay: float
    """Seconds from image to pose, the median of the last ones; more is a warning."""
    max_age: float
    """Seconds without an image, or without a pose, from which it is an error."""


class Health:
    """Counts from any thread; starts anew with `start`, the counters apart."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter(dict.fromkeys(TOTALS, 0))
        self._poses: deque[tuple[float, float]] = deque()
        self._image_at = self._pose_at = self._since = now()
        self._had_pose = False

    def start(self) -> None:
        """From now on poses are expected."""
        with self._lock:
            self._poses.clear()
            self._image_at = self._pose_at = self._since = self._now()
            self._had_pose = False

    def count(self, *names: str) -> None:
        """One more of each."""
        with self._lock:
            self._counts.update(names)

    def image(self) -> None:
        """An image came in."""
        with self._lock:
            self._counts["received"] += 1
            self._image_at = self._now()

    def pose(self, delay_s: float) -> None:
        """A pose went out; delay_s: since its image was taken, or came in."""
        with self._lock:
            self._counts["published"] += 1
            self._pose_at, self._had_pose = self._now(), True
            self._poses.append((self._pose_at, delay_s))

    def since_image(self) -> float:
        """Seconds."""
        return self._now() - self._image_at

    def values(self) -> dict[str, str]:
        """Every figure by name."""
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

    def judge(self, limits: Limits, last: tuple[int, str], topic: str) -> list[tuple[int, str]]:
        """Level and words for each thing that is not well. last: what became of the last image."""
        with self._lock:
            now = self._now()
            if now - self._image_at > limits.max_age:
                return [(ERROR, no_image(topic, now - self._image_at))]
            found = [last] if last[0] != OK else []
            if now - self._pose_at > limits.max_age:
                found.append((ERROR, f"no pose for {now - self._pose_at:.0f} s"))
            rate, delays = self._rate()
            if now - self._since > WINDOW_S and rate < limits.min_rate:
                found.append((WARN, f"poses at {rate:.1f} Hz, fewer than {limits.min_rate:g}"))
            if delays and np.median(delays) > limits.max_delay:
                found.append(
                    (WARN, f"poses {np.median(delays):.2f} s late, over {limits.max_delay:g}")
                )
            return found

    def _rate(self) -> tuple[float, list[float]]:
        now = self._now()
        while self._poses and self._poses[0][0] < now - WINDOW_S:
            self._poses.popleft()
        span = min(WINDOW_S, max(now - self._since, 1.0))
        return len(self._poses) / span, [delay for _, delay in self._poses]


def no_image(topic: str, seconds: float) -> str:
    """What to say of a silent camera."""
    return (
        f"no image on {topic} for {seconds:.0f} s: check that the camera runs and that its topic, "
        "image_transport and QoS are these"
    )
