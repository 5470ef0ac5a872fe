"""The names of the node's camera topics, by the rules of image_transport."""

from __future__ import annotations

from rclpy.node import Node

from rgsiam_ros.camera.camera_info import beside

COMPRESSED = "/compressed"


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
