"""The transform that the node may own: map -> base, or map -> odom from pose and odometry."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from rclpy.node import Node

from rgsiam_ros.errors import RgsiamError, TransformUnavailableError
from rgsiam_ros.geometry import Array, invert
from rgsiam_ros.node.log_throttle import THROTTLE_S
from rgsiam_ros.node.transforms import OwnedTransform, Transforms


@dataclass(frozen=True)
class TfFrames:
    """Names of the frames."""

    map: str
    odom: str
    base: str


class TfOutput:
    """Sends one transform while it is open."""

    def __init__(self, node: Node, transforms: Transforms, mode: str, frames: TfFrames) -> None:
        """mode: ``none``, ``map_to_base`` or ``map_to_odom``."""
        self._node, self._transforms, self._mode, self._frames = node, transforms, mode, frames
        self._lock = threading.Lock()
        self._T_map_odom: Array | None = None
        self._unpaired: tuple[Array, int] | None = None
        self._unpaired_reason = ""
        self._sending = True
        self._timer = None
        child = {"map_to_base": frames.base, "map_to_odom": frames.odom}.get(mode)
        self._owned = child and OwnedTransform(node, transforms, frames.map, child)
        if mode == "map_to_odom":
            period = 1.0 / node.get_parameter("tf_rebroadcast_rate").value
            self._timer = node.create_timer(period, self._rebroadcast)

    def send(self, T_map_base: Array, at_ns: int) -> None:
        """A new pose of the base."""
        if not self._owned:
            return
        if self._mode == "map_to_base":
            self._owned.send(T_map_base, at_ns)
            return
        with self._lock:
            if self._unpaired is not None:
                self._node.get_logger().warning(
                    f"no {self._frames.map} -> {self._frames.odom}: {self._unpaired_reason}; is "
                    f"odometry broadcasting {self._frames.odom} -> {self._frames.base}?",
                    throttle_duration_sec=THROTTLE_S,
                )
            self._unpaired = (T_map_base, at_ns)
        self._sending = True
        self._rebroadcast()

    def pause(self) -> None:
        """Stop repeating map -> odom until the next pose."""
        with self._lock:
            self._sending = False
            self._T_map_odom = self._unpaired = None

    def close(self) -> None:
        """Stop for good."""
        self.pause()
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        if self._owned:
            self._owned.close()

    def _rebroadcast(self) -> None:
        """Send map -> odom; a new pose is paired with odometry of its stamp as soon as that is in."""
        with self._lock:
            self._pair_with_odometry()
            T_map_odom = self._T_map_odom
        if not self._owned or T_map_odom is None or not self._sending:
            return
        tolerance_ns = round(self._node.get_parameter("transform_tolerance").value * 1e9)
        self._owned.send(T_map_odom, self._node.get_clock().now().nanoseconds + tolerance_ns)

    def _pair_with_odometry(self) -> None:
        if self._unpaired is None:
            return
        T_map_base, at_ns = self._unpaired
        try:
            T_odom_base = self._transforms.lookup(self._frames.odom, self._frames.base, at_ns)
        except TransformUnavailableError as error:
            self._unpaired_reason = str(error)
            return
        self._T_map_odom = T_map_base @ invert(T_odom_base)
        self._unpaired = None


def refuse_equal_frames(frames: TfFrames, tf_mode: str) -> None:
    """Raises RgsiamError where one name stands for two frames."""
    if frames.map.lstrip("/") == frames.base.lstrip("/"):
        raise RgsiamError(f"map_frame and base_frame are both {frames.map}: name two frames")
    if tf_mode == "map_to_odom" and frames.odom.lstrip("/") in (
        frames.map.lstrip("/"),
        frames.base.lstrip("/"),
    ):
        raise RgsiamError(
            f"odom_frame is {frames.odom}, which is also the map or the base: name three frames"
        )
