"""Check the stream of images for images that do not arrive, wrong stamps and a second publisher."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from rclpy.node import Node

from rgsiam_ros.camera.levels import has_contrast
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.geometry.conversions import checked_stamp_ns
from rgsiam_ros.node.health import WARN, Health
from rgsiam_ros.node.log_throttle import LogThrottle


class ImageStream:
    """Counts and logs what is wrong with the images of a topic. For the executor's thread, if nothing else is said."""

    def __init__(self, node: Node, health: Health, throttle: LogThrottle) -> None:
        self._node, self._health, self._throttle = node, health, throttle
        self._arrival_rate, self._stamps = ArrivalRate(), StampCheck()
        self.topic = ""

    def forget(self) -> None:
        """Forget the stamps of earlier images."""
        self._arrival_rate, self._stamps = ArrivalRate(), StampCheck()

    def check_image(self, stamp: Any) -> tuple[int | None, str]:
        """Count and check an image.

        Returns its stamp in nanoseconds, None if it is no time, and why the image cannot be used; empty if it can.
        """
        self._health.image()
        try:
            stamp_ns = checked_stamp_ns(stamp)
        except ValueError as error:
            return None, f"{error}: let the camera driver stamp its images"
        return stamp_ns, self._check_stamp(stamp_ns)

    def check_contrast(self, image_HW3: ImageBGR) -> None:
        """Count and log an image without contrast. In the worker's thread."""
        if has_contrast(image_HW3):
            return
        self._health.count("no_contrast")
        self._warn(
            "contrast",
            "an image has hardly any contrast: check exposure and lens cap; for a 16-bit camera, build the map "
            "from its own images, so that its range is known",
        )

    def _check_stamp(self, stamp_ns: int) -> str:
        self._arrival_rate.add(stamp_ns)
        complaint = self._arrival_rate.complaint()
        if complaint:
            self._node.get_logger().warning(complaint, throttle_duration_sec=30.0)
        problem = self._stamps.problem(stamp_ns, self._node.get_clock().now().nanoseconds)
        if problem is None:
            return ""
        cause, message = problem
        if cause == "zero":
            return message
        self._health.count(f"stamp_{cause}")
        self._warn(cause, message)
        return ""

    def findings(self) -> list[tuple[int, str]]:
        """Level and message of what is wrong with the topic.

        Call it once a second, because it counts the seconds with two publishers.
        """
        if not self.topic:
            return []
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        if len(publishers) < 2:
            return []
        self._health.count("seconds_with_two_publishers")
        names = (p.node_namespace.rstrip("/") + "/" + p.node_name for p in publishers)
        message = (
            f"{len(publishers)} publishers on {self.topic} ({', '.join(sorted(names))}): images of "
            "several cameras give poses that jump; stop all but one, or remap image"
        )
        self._warn("publishers", message)
        return [(WARN, message)]

    def _warn(self, kind: str, message: str) -> None:
        if self._throttle.may_log(kind):
            self._node.get_logger().warning(f"{self.topic}: {message}")


FUTURE_S = 1.0
"""A stamp that is further ahead of the node's clock is reported."""
ANOTHER_CLOCK_S = 60.0
"""If the delay since the stamp is larger, the stamp is taken to come from another clock."""


class StampCheck:
    """Compares each stamp with the previous one and with the clock."""

    def __init__(self) -> None:
        self._last_ns: int | None = None

    def problem(self, stamp_ns: int, now_ns: int) -> tuple[str, str] | None:
        """Cause (``zero``, ``backwards`` or ``future``) and message; None if the stamp is right.

        now_ns: time of the node's clock; 0 before simulated time has begun.
        """
        if stamp_ns <= 0:
            return "zero", (
                "the image's stamp is zero: let the camera driver stamp its images, because "
                "a pose without a time is useless"
            )
        last_ns, self._last_ns = self._last_ns, stamp_ns
        if last_ns is not None and stamp_ns < last_ns:
            return "backwards", (
                f"stamps went back by {(last_ns - stamp_ns) * 1e-9:.3f} s (a looped bag, a simulation "
                "that was reset, or two cameras on one topic): the gate starts anew"
            )
        ahead = (stamp_ns - now_ns) * 1e-9
        if now_ns > 0 and ahead > FUTURE_S:
            return "future", (
                f"stamps are {ahead:.1f} s in the future: synchronise the camera's clock with this "
                "machine's, or set use_sim_time as the camera does"
            )
        return None


def delay_s(stamp_ns: int, now_ns: int, since_received_s: float) -> float:
    """Seconds since the stamp, or since the receipt if the stamp is from another clock, as in a replay."""
    since_stamp = (now_ns - stamp_ns) * 1e-9
    return since_stamp if 0.0 <= since_stamp < ANOTHER_CLOCK_S else since_received_s


WINDOW = 40
"""Number of stamps that the share is computed from."""
NOMINAL_PERCENTILE = 10
"""The camera's period is taken to be this percentile of the time between consecutive stamps."""
LOW_SHARE = 0.6
"""A smaller share of arriving images is reported."""


class ArrivalRate:
    """Estimates from the stamps which share of the images arrives."""

    def __init__(self) -> None:
        self._stamps_ns: deque[int] = deque(maxlen=WINDOW)

    def add(self, stamp_ns: int) -> None:
        """Add the stamp of a received image. A stamp that goes backwards restarts the window."""
        if self._stamps_ns and stamp_ns <= self._stamps_ns[-1]:
            self._stamps_ns.clear()
        self._stamps_ns.append(stamp_ns)

    def arriving_share(self) -> float | None:
        """Received rate over the rate that the stamps imply, 0 to 1; None before the window is full."""
        if len(self._stamps_ns) < WINDOW:
            return None
        gaps = np.diff(np.array(self._stamps_ns))
        return float(min(1.0, np.percentile(gaps, NOMINAL_PERCENTILE) / gaps.mean()))

    def complaint(self) -> str | None:
        """The warning if far too few images arrive, else None. A warning restarts the window."""
        share = self.arriving_share()
        if share is None or share >= LOW_SHARE:
            return None
        gaps = np.diff(np.array(self._stamps_ns)) * 1e-9
        self._stamps_ns.clear()
        return (
            f"only about {share:.0%} of the images arrive: {1.0 / gaps.mean():.1f} Hz received, "
            f"but their stamps imply {1.0 / np.percentile(gaps, NOMINAL_PERCENTILE):.1f} Hz. Large "
            "raw images overflow Fast DDS's shared memory in the camera driver's process: start "
            "the driver with FASTRTPS_DEFAULT_PROFILES_FILE set to config/fastdds_large_images.xml "
            "of rgsiam_ros, or use the compressed transport"
        )
