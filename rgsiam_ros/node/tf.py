"""Look up transforms, with tf2_ros if it is installed, otherwise with plain TF messages, and broadcast one."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.time import Time
from tf2_msgs.msg import TFMessage

from rgsiam_ros.errors import RgsiamError, TransformUnavailableError
from rgsiam_ros.geometry.conversions import checked_stamp_ns, pose_from_message, stamp_to_ns
from rgsiam_ros.geometry.frame_tree import TransformTree
from rgsiam_ros.geometry.poses import Array, invert
from rgsiam_ros.node.log_throttle import SHOWN, THROTTLE_S
from rgsiam_ros.node.messages import transform_message
from rgsiam_ros.node.qos import STATIC_TF_QOS, TF_QOS

try:
    import tf2_ros
except ImportError:
    tf2_ros = None


class Transforms(Protocol):
    """Looks up transforms on TF."""

    def lookup(self, target: str, source: str, at_ns: int | None) -> Array:
        """``T_target_source`` ``(4, 4)``, metres, at a stamp. Raises TransformUnavailableError.

        at_ns: None for the newest.
        """
        ...


def create_transforms(node: Node) -> Transforms:
    """Create the transforms of a node: with tf2_ros if it is installed, otherwise with plain messages."""
    return PlainTransforms(node) if tf2_ros is None else Tf2RosTransforms(node)


class Tf2RosTransforms:
    """Transforms by tf2_ros."""

    def __init__(self, node: Node) -> None:
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def lookup(self, target: str, source: str, at_ns: int | None) -> Array:
        """See `Transforms`."""
        time = Time() if at_ns is None else Time(nanoseconds=at_ns)
        try:
            transform = self._buffer.lookup_transform(target, source, time).transform
            return pose_from_message(transform.translation, transform.rotation)
        except (tf2_ros.TransformException, ValueError) as error:
            raise TransformUnavailableError(f"{target} -> {source}: {error}") from error


class PlainTransforms:
    """Transforms by tf2_msgs/TFMessage and `rgsiam_ros.geometry.frame_tree.TransformTree`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._tree = TransformTree()
        self._lock = threading.Lock()
        node.create_subscription(TFMessage, "/tf", self._take_moving, TF_QOS)
        node.create_subscription(TFMessage, "/tf_static", self._take_static, STATIC_TF_QOS)

    def lookup(self, target: str, source: str, at_ns: int | None) -> Array:
        """See `Transforms`."""
        with self._lock:
            return self._tree.lookup(target, source, at_ns)

    def _take_moving(self, message: TFMessage) -> None:
        self._take(message, static=False)

    def _take_static(self, message: TFMessage) -> None:
        self._take(message, static=True)

    def _take(self, message: TFMessage, *, static: bool) -> None:
        for item in message.transforms:
            parent, child = item.header.frame_id, item.child_frame_id
            try:
                T, at_ns = (
                    pose_from_message(item.transform.translation, item.transform.rotation),
                    checked_stamp_ns(item.header.stamp),
                )
                with self._lock:
                    self._tree.update(parent, child, T, at_ns, static=static)
            except ValueError as error:
                self._node.get_logger().warning(
                    f"TF {parent:.{SHOWN}} -> {child:.{SHOWN}} ignored: {error}",
                    throttle_duration_sec=10.0,
                )


class OwnedTransform:
    """Broadcasts one transform, and logs an error when another node broadcasts the same child frame."""

    def __init__(self, node: Node, parent: str, child: str) -> None:
        self._node = node
        self._publisher = node.create_publisher(TFMessage, "/tf", TF_QOS)
        self.parent, self.child = parent, child
        self._sent: deque[tuple[int, float, float, float]] = deque(maxlen=400)
        self._subscriptions = [
            node.create_subscription(TFMessage, "/tf", self._watch, TF_QOS),
            node.create_subscription(TFMessage, "/tf_static", self._watch, STATIC_TF_QOS),
        ]

    def send(self, T_parent_child: Array, at_ns: int) -> None:
        """Broadcast the transform: ``(4, 4)``, metres, with this stamp."""
        message = transform_message(self.parent, self.child, at_ns, T_parent_child)
        self._sent.append(_stamp_and_translation(message))
        self._publisher.publish(TFMessage(transforms=[message]))

    def close(self) -> None:
        """Leave TF."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._node.destroy_publisher(self._publisher)

    def _watch(self, message: TFMessage) -> None:
        for item in message.transforms:
            if (
                item.child_frame_id.lstrip("/") != self.child
                or _stamp_and_translation(item) in self._sent
            ):
                continue
            self._node.get_logger().error(
                f"another node broadcasts {item.header.frame_id:.{SHOWN}} -> {self.child}, which this node "
                f"owns with tf_mode ({self.parent} -> {self.child}); a frame has one parent: stop "
                "the other one or set tf_mode to none",
                throttle_duration_sec=10.0,
            )


def _stamp_and_translation(message: TransformStamped) -> tuple[int, float, float, float]:
    t = message.transform.translation
    return stamp_to_ns(message.header.stamp), t.x, t.y, t.z


@dataclass(frozen=True)
class TfFrames:
    """Names of the map, odometry and vehicle frames."""

    map: str
    odom: str
    base: str


class TfOutput:
    """Broadcasts the transform that ``tf_mode`` names."""

    def __init__(self, node: Node, transforms: Transforms, mode: str, frames: TfFrames) -> None:
        """mode: ``none``, ``map_to_base`` or ``map_to_odom``."""
        self._node, self._transforms, self._mode, self._frames = node, transforms, mode, frames
        self._lock = threading.Lock()
        self._T_map_odom: Array | None = None
        # the newest T_map_base and its stamp, until odometry at this stamp has arrived
        self._unpaired: tuple[Array, int] | None = None
        self._unpaired_reason = ""
        self._sending = True
        self._timer = None
        child = {"map_to_base": frames.base, "map_to_odom": frames.odom}.get(mode)
        self._owned = OwnedTransform(node, frames.map, child) if child else None
        if mode == "map_to_odom":
            period = 1.0 / node.get_parameter("tf_rebroadcast_rate").value
            self._timer = node.create_timer(period, self._rebroadcast)

    def send(self, T_map_base: Array, at_ns: int) -> None:
        """Broadcast a new pose of the base: ``(4, 4)``, metres, at the image's stamp."""
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
        """Stop repeating map -> odom until the next pose, and forget the last transform."""
        with self._lock:
            self._sending = False
            self._T_map_odom = self._unpaired = None

    def close(self) -> None:
        """Stop broadcasting and unsubscribe from TF."""
        self.pause()
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        if self._owned:
            self._owned.close()

    def _rebroadcast(self) -> None:
        """Broadcast map -> odom. A new pose takes effect once odometry at its stamp has arrived."""
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


def frames_from_parameters(node: Node, map_frame: str) -> TfFrames:
    """The frames that the node's parameters name. map_frame: that of the map in use.

    Raises RgsiamError if two of the frames that ``tf_mode`` needs have the same name.
    """
    base, odom = (str(node.get_parameter(name).value) for name in ("base_frame", "odom_frame"))
    if map_frame == base:
        raise RgsiamError(f"map_frame and base_frame are both {map_frame}: name two frames")
    if node.get_parameter("tf_mode").value == "map_to_odom" and odom in (map_frame, base):
        raise RgsiamError(
            f"odom_frame is {odom}, which is also the map or the base: name three frames"
        )
    return TfFrames(map=map_frame, odom=odom, base=base)
