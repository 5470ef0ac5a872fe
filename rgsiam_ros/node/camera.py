"""The live camera: its model from camera_info, and its mount from TF or parameters."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.errors import CameraError, TransformUnavailableError
from rgsiam_ros.geometry.conversions import roll_pitch_yaw_deg
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.node.health import Health
from rgsiam_ros.node.messages import camera_from_message
from rgsiam_ros.node.parameters import mount_from_parameters
from rgsiam_ros.node.tf import Transforms


class LiveCamera:
    """Adapts the relocalizer to the camera of the newest camera_info.

    `take` runs in the executor's thread, `apply` in the worker's.
    """

    def __init__(self, node: Node, health: Health) -> None:
        self._node, self._health = node, health
        self._pending: Camera | None = None
        self._last: Camera | None = None
        self._problem: str | None = None

    def take(self, message: CameraInfo) -> None:
        """Store the camera of a camera_info message. A message without a usable camera is logged."""
        try:
            camera = camera_from_message(message)
        except CameraError as error:
            self._health.count("camera_info_refused")
            self._node.get_logger().warning(f"camera_info: {error}", throttle_duration_sec=30.0)
            return
        if camera != self._last:
            self._last = self._pending = camera

    def renew(self) -> None:
        """Apply the last camera again when another bundle is in use."""
        self._pending, self._problem = self._last, None

    def forget(self) -> None:
        """Forget the camera until the next camera_info message."""
        self._last = self._pending = self._problem = None

    def apply(self, relocalizer: Relocalizer) -> None:
        """Adapt `relocalizer` to the newest camera. Raises CameraError if it does not fit the bundle."""
        camera, self._pending = self._pending, None
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


class CameraMount:
    """Looks up the camera's mount for each image, so that a late or changed mount takes effect at once."""

    def __init__(self, node: Node, transforms: Transforms, base_frame: str, health: Health) -> None:
        self._node, self._transforms, self._health = node, transforms, health
        self._base_frame = base_frame
        self._parameter = mount_from_parameters(node)
        self._last: tuple[str, Array] | None = None

    def lookup(self, image_frame: str) -> Array:
        """``T_base_camera`` ``(4, 4)``, metres.

        Raises TransformUnavailableError, which says what to publish.
        """
        camera_frame = self._node.get_parameter("camera_frame").value or image_frame
        if camera_frame.lstrip("/") == self._base_frame.lstrip("/"):
            return np.eye(4)
        try:
            T_base_camera = self._transforms.lookup(self._base_frame, camera_frame, None)
        except TransformUnavailableError as error:
            if self._parameter is not None:
                return self._parameter
            raise TransformUnavailableError(
                f"the camera's mount is unknown ({error}): publish {self._base_frame} -> "
                f"{camera_frame or '(the image has no frame_id: set camera_frame)'} on /tf_static, "
                "or set mount_translation and mount_quaternion_xyzw"
            ) from error
        self._log_change(camera_frame, T_base_camera)
        return T_base_camera

    def _log_change(self, camera_frame: str, T_base_camera: Array) -> None:
        last, self._last = self._last, (camera_frame, T_base_camera)
        if last is None or last[0] != camera_frame or np.array_equal(last[1], T_base_camera):
            return
        self._health.count("mount_changed")
        self._node.get_logger().warning(
            f"the mount {self._base_frame} -> {camera_frame} has changed, now at "
            f"{np.round(T_base_camera[:3, 3], 3).tolist()} m, roll pitch yaw "
            f"{np.round(roll_pitch_yaw_deg(T_base_camera), 2).tolist()} degrees: poses follow it; if "
            "nobody moved the camera, two nodes publish this transform",
            throttle_duration_sec=30.0,
        )
