"""The live camera: its model from camera_info, and its mount from TF or parameters."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo

from rgsiam_ros.camera.camera_info import (
    ImagePart,
    calibrated_camera,
    contradicts_rectified,
    frames_differ,
    part_of_image,
)
from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.errors import CameraError, TransformUnavailableError
from rgsiam_ros.geometry.conversions import roll_pitch_yaw_deg
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.node.health import WARN, Health
from rgsiam_ros.node.log_throttle import SHOWN
from rgsiam_ros.node.parameters import mount_from_parameters
from rgsiam_ros.node.tf import Transforms


class LiveCamera:
    """Adapts the relocalizer to the camera of the newest camera_info.

    `open`, `take`, `state` and `findings` run in the executor's thread, `apply` and `check_size` in the
    worker's.
    """

    def __init__(self, node: Node, health: Health) -> None:
        self._node, self._health = node, health
        self._image_topic = self._info_topic = ""
        self._pending: Camera | None = None
        self._last: Camera | None = None
        self._part: ImagePart | None = None
        self._contradiction: str | None = None  # in camera_info itself
        self._problem: str | None = None  # with the bundle
        self._warning = self._frame = ""

    def open(self, image_topic: str, info_topic: str) -> None:
        """Set the names of the topics, for messages, and log them."""
        self._image_topic, self._info_topic = image_topic, info_topic
        self._node.get_logger().info(f"images from {image_topic}, camera_info from {info_topic}")

    def take(self, message: CameraInfo) -> None:
        """Store the camera of a camera_info message. A message without a usable camera is logged."""
        rectified = self._node.get_parameter("rectified_images").value
        self._frame = message.header.frame_id
        part: ImagePart | None = None
        try:
            part = part_of_image(message)
            camera = part.of(calibrated_camera(message, rectified=rectified))
        except CameraError as error:
            self._health.count("camera_info_refused")
            if part is None or not part.whole:  # the images show another part of the view
                self._contradiction = f"{self._info_topic}: {error}"
            else:
                self._warn(f"{error}; the lens is not checked")
            return
        self._contradiction = None
        self._part = part
        if not rectified and contradicts_rectified(message, self._image_topic):
            self._warn(
                f"{self._image_topic} is rectified by its name, but K and D of camera_info are those of raw "
                "images: if the images are rectified, set rectified_images to true, so that P is used"
            )
        else:
            self._warning = ""
        if camera != self._last:
            self._last = self._pending = camera

    def state(self) -> str:
        """What is known of the lens, for ``/diagnostics``."""
        if self._warning or self._contradiction:
            return self._contradiction or self._warning
        if self._last is None and self._info_topic:
            return f"no camera_info on {self._info_topic}: the lens is not checked"
        return f"checked with {self._info_topic}" if self._info_topic else ""

    def findings(self) -> list[tuple[int, str]]:
        """Level and message of what is wrong with camera_info while poses are published."""
        return [(WARN, self._warning)] if self._warning else []

    @property
    def any_resolution(self) -> bool:
        """Whether an image may have another size than camera_info says, see `ImagePart.check_size`."""
        return self._part is None or self._part.whole

    def renew(self) -> None:
        """Apply the last camera again when another bundle is in use."""
        self._pending, self._problem = self._last, None

    def forget(self) -> None:
        """Forget the camera until the next camera_info message."""
        self._last = self._pending = self._part = None
        self._contradiction = self._problem = None
        self._warning = self._frame = ""

    def apply(self, relocalizer: Relocalizer, image_frame: str) -> None:
        """Adapt `relocalizer` to the newest camera.

        image_frame: the frame_id of the image. Raises CameraError if the camera does not fit the bundle, or
        if camera_info is of another camera than the image.
        """
        if self._contradiction is not None:
            raise CameraError(self._contradiction)
        camera_frame = self._node.get_parameter("camera_frame").value
        if frames_differ(image_frame, self._frame) and not camera_frame:
            raise CameraError(
                f"the image is of the frame {image_frame}, but {self._info_topic} is of {self._frame}, another "
                "camera: remap camera_info to this camera's, or set camera_frame if they are one camera"
            )
        camera, self._pending = self._pending, None
        if camera is not None:
            self._adapt(camera, relocalizer)
        if self._problem is not None:
            raise CameraError(self._problem)

    def check_size(self, image_HW3: ImageBGR) -> None:
        """Raise CameraError if camera_info has a region of interest and the image is not of its size."""
        if self._part is not None:
            self._part.check_size(image_HW3.shape[1], image_HW3.shape[0])

    def _warn(self, text: str) -> None:
        self._warning = f"{self._info_topic}: {text}"
        self._node.get_logger().warning(self._warning, throttle_duration_sec=30.0)

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
        camera_frame = self._node.get_parameter("camera_frame").value or image_frame.lstrip("/")
        if camera_frame == self._base_frame:
            return np.eye(4)
        try:
            T_base_camera = self._transforms.lookup(self._base_frame, camera_frame, None)
        except TransformUnavailableError as error:
            if self._parameter is not None:
                return self._parameter
            raise TransformUnavailableError(
                f"the camera's mount is unknown ({error}): publish {self._base_frame} -> "
                f"{camera_frame[:SHOWN] or '(the image has no frame_id: set camera_frame)'} on /tf_static, "
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
            f"the mount {self._base_frame} -> {camera_frame:.{SHOWN}} has changed, now at "
            f"{np.round(T_base_camera[:3, 3], 3).tolist()} m, roll pitch yaw "
            f"{np.round(roll_pitch_yaw_deg(T_base_camera), 2).tolist()} degrees: poses follow it; if "
            "nobody moved the camera, two nodes publish this transform",
            throttle_duration_sec=30.0,
        )
