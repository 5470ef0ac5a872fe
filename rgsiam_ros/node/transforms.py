"""TF in and out: tf2_ros where it is installed, plain messages with tf2's QoS where it is not."""

from __future__ import annotations

import threading
from collections import deque
from typing import Protocol

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from tf2_msgs.msg import TFMessage

from rgsiam_ros.errors import TransformUnavailableError
from rgsiam_ros.geometry import Array
from rgsiam_ros.node.messages import stamp_ns, transform_message
from rgsiam_ros.transforms import TransformTree, matrix_from_transform

try:
    import tf2_ros
except ImportError:
    tf2_ros = None

DYNAMIC_QOS = QoSProfile(
    depth=100,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.VOLATILE,
)
STATIC_QOS = QoSProfile(
    depth=100,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


class Transforms(Protocol):
    """What the node needs of TF."""

    def lookup(self, target: str, source: str, at_ns: int | None) -> Array:
        """``T_target_source``; at_ns None: the newest. Raises TransformUnavailableError."""
        ...

    def send(self, transform: TransformStamped) -> None:
        """Broadcast one moving transform."""
        ...


def create_transforms(node: Node) -> Transforms:
    """The best TF there is."""
    return PlainTransforms(node) if tf2_ros is None else Tf2RosTransforms(node)


class Tf2RosTransforms:
    """Over tf2_ros."""

    def __init__(self, node: Node) -> None:
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        self._broadcaster = tf2_ros.TransformBroadcaster(node)

    def lookup(self, target: str, source: str, at_ns: int | None) -> Array:
        """See `Transforms`."""
        time = Time() if at_ns is None else Time(nanoseconds=at_ns)
        try:
            found = self._buffer.lookup_transform(target, source, time)
            return matrix_from_transform(found.transform)
        except (tf2_ros.TransformException, ValueError) as error:
            raise TransformUnavailableError(f"{target} -> {source}: {error}") from error

    def send(self, transform: TransformStamped) -> None:
        """See `Transforms`."""
        self._broadcaster.sendTransform(transform)


class PlainTransforms:
    """Over tf2_msgs/TFMessage and `rgsiam_ros.transforms.TransformTree`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._tree = TransformTree()
        self._lock = threading.Lock()
        self._publisher = node.create_publisher(TFMessage, "/tf", DYNAMIC_QOS)
        node.create_subscription(TFMessage, "/tf", self._take_moving, DYNAMIC_QOS)
        node.create_subscription(TFMessage, "/tf_static", self._take_static, STATIC_QOS)

    def lookup(self, target: str, source: str, at_ns: int | None) -> Array:
        """See `Transforms`."""
        with self._lock:
            return self._tree.lookup(target, source, at_ns)

    def send(self, transform: TransformStamped) -> None:
        """See `Transforms`."""
        self._publisher.publish(TFMessage(transforms=[transform]))

    def _take_moving(self, message: TFMessage) -> None:
        self._take(message, static=False)

    def _take_static(self, message: TFMessage) -> None:
        self._take(message, static=True)

    def _take(self, message: TFMessage, *, static: bool) -> None:
        for item in message.transforms:
            parent, child = item.header.frame_id, item.child_frame_id
            try:
                T, at_ns = matrix_from_transform(item.transform), stamp_ns(item.header.stamp)
                with self._lock:
                    self._tree.update(parent, child, T, at_ns, static=static)
            except ValueError as error:
                self._node.get_logger().warning(
                    f"TF {parent} -> {child} ignored: {error}", throttle_duration_sec=10.0
                )


class OwnedTransform:
    """One parent -> child transform that only this node should broadcast; it watches for others."""

    def __init__(self, node: Node, transforms: Transforms, parent: str, child: str) -> None:
        self._node, self._transforms = node, transforms
        self.parent, self.child = parent, child
        self._sent: deque[tuple[int, float, float, float]] = deque(maxlen=400)
        self._subscriptions = [
            node.create_subscription(TFMessage, "/tf", self._watch, DYNAMIC_QOS),
            node.create_subscription(TFMessage, "/tf_static", self._watch, STATIC_QOS),
        ]

    def send(self, T_parent_child: Array, at_ns: int) -> None:
        """Broadcast it."""
        message = transform_message(self.parent, self.child, at_ns, T_parent_child)
        self._sent.append(_mark(message))
        self._transforms.send(message)

    def close(self) -> None:
        """Stop watching."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _watch(self, message: TFMessage) -> None:
        for item in message.transforms:
            if item.child_frame_id.lstrip("/") != self.child or _mark(item) in self._sent:
                continue
            self._node.get_logger().error(
                f"another node broadcasts {item.header.frame_id} -> {self.child}, which this node "
                f"owns with tf_mode ({self.parent} -> {self.child}); a frame has one parent: stop "
                "the other one or set tf_mode to none",
                throttle_duration_sec=10.0,
            )


def _mark(message: TransformStamped) -> tuple[int, float, float, float]:
    t = message.transform.translation
    return stamp_ns(message.header.stamp), t.x, t.y, t.z
