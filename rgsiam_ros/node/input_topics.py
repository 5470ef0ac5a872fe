"""The node's camera topics, by the rules of image_transport."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from rgsiam_ros.camera.camera_info import COMPRESSED, beside
from rgsiam_ros.node.qos import image_qos


def subscribe_images(
    node: Node, transport: str, topic: str, take: Callable[[Any], None]
) -> Subscription:
    """Subscribe to the images on `topic`, and let QoS overrides apply. transport: ``raw`` or ``compressed``."""
    return node.create_subscription(
        Image if transport == "raw" else CompressedImage,
        topic,
        take,
        image_qos(),
        qos_overriding_options=QoSOverridingOptions.with_default_policies(),
    )


def subscribe_camera_info(
    node: Node, topic: str, take: Callable[[CameraInfo], None]
) -> Subscription:
    """Subscribe to the camera info on `topic`."""
    return node.create_subscription(CameraInfo, topic, take, qos_profile_sensor_data)


def image_topic(node: Node, transport: str) -> str:
    """The topic of the images.

    With the transport ``compressed`` it is ``image/compressed``, if that is remapped, and else the topic
    ``compressed`` below that of ``image``.
    """
    base = node.resolve_topic_name("image")
    if transport == "raw":
        return base
    given = _remapped(node, f"image{COMPRESSED}")
    return given or base + COMPRESSED


def camera_info_topic(node: Node, images: str) -> str:
    """The topic of the camera info: that of ``camera_info``, if it is remapped, and else beside the images."""
    return _remapped(node, "camera_info") or beside(images)


def _remapped(node: Node, topic: str) -> str | None:
    name = node.resolve_topic_name(topic)
    return None if name == node.resolve_topic_name(topic, only_expand=True) else name
