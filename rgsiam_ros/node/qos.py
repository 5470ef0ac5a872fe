"""QoS profiles of the node's topics.

rclpy writes a topic's QoS overrides into the profile that it is given. A topic that can be overridden
therefore gets a new profile each time, from a function.
"""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

TF_QOS = QoSProfile(
    depth=100,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.VOLATILE,
)
"""The QoS with which tf2 publishes ``/tf``."""
STATIC_TF_QOS = QoSProfile(
    depth=100,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""The QoS with which tf2 publishes ``/tf_static``."""


def image_qos() -> QoSProfile:
    """Best effort, with a queue of only the newest image."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


def pose_qos() -> QoSProfile:
    """Reliable delivery, with a queue of ten poses."""
    return QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


def drawing_qos() -> QoSProfile:
    """Reliable, so that it serves every subscriber, with a queue of only the newest image."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


def latched_qos() -> QoSProfile:
    """A late subscriber receives the last message."""
    return QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
