"""The live camera, from camera_info: adapted to, or named where it cannot be."""

from __future__ import annotations

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo

from rgsiam_ros.camera import Camera
from rgsiam_ros.errors import CameraError
from rgsiam_ros.node.health import Health
from rgsiam_ros.node.messages import camera_from_message
from rgsiam_ros.relocalizer import Relocalizer


class CameraWatch:
    """`take` in the executor's thread, `apply` in the worker's."""

    def __init__(self, node: Node, health: Health) -> None:
        self._node, self._health = node, health
        self._news: Camera | None = None
        self._last: Camera | None = None
        self._problem: str | None = None

    def take(self, message: CameraInfo) -> None:
        """A new camera info."""
        try:
            camera = camera_from_message(message)
        except CameraError as error:
            self._health.count("camera_info_refused")
            self._node.get_logger().warning(f"camera_info: {error}", throttle_duration_sec=30.0)
            return
        if camera != self._last:
            self._last = self._news = camera

    def renew(self) -> None:
        """Another bundle serves: what is known of the camera is new to it."""
        self._news, self._problem = self._last, None

    def forget(self) -> None:
        """Wait for the next camera info."""
        self._last = self._news = self._problem = None

    def apply(self, relocalizer: Relocalizer) -> None:
        """Adapt to the newest camera. Raises CameraError while that is impossible."""
        camera, self._news = self._news, None
        if camera is not None:
            self._adapt(camera, relocalizer)
        if self._problem is not None:
            raise CameraError(self._problem)

    def _adapt(self, camera: Camera, relocalizer: Relocalizer) -> None:
        try:
            view = relocalizer.use_camera(camera)
        except CameraError as error:
            self._problem = f"the camera cannot be reconciled with the bundle: {error}"
            self._node.get_logger().error(self._problem)
            return
        self._problem = None
        if not view.identical:
            x, y, w, h = view.crop_xywh
            self._node.get_logger().warning(
                f"the camera differs from the bundle's ({view.explanation}): its images are "
                f"cropped to {w}x{h}+{x}+{y} and resized"
            )
