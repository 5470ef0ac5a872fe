"""Where the camera is mounted: from TF, or from the parameters."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node

from rgsiam_ros.errors import TransformUnavailableError
from rgsiam_ros.geometry import Array
from rgsiam_ros.node.health import Health
from rgsiam_ros.node.parameters import mount_from_parameters
from rgsiam_ros.node.transforms import Transforms


class Mount:
    """Looks it up for each image, so that a late or changed one counts at once."""

    def __init__(self, node: Node, transforms: Transforms, base_frame: str, health: Health) -> None:
        self._node, self._transforms, self._health = node, transforms, health
        self._base_frame = base_frame
        self._parameter = mount_from_parameters(node)
        self._last: tuple[str, Array] | None = None

    def lookup(self, image_frame: str) -> Array:
        """``T_base_camera``. Raises TransformUnavailableError that says what to publish."""
        camera_frame = self._node.get_parameter("camera_frame").value or image_frame
        if camera_frame.lstrip("/") == self._base_frame.lstrip("/"):
            return np.eye(4)
        try:
            found = self._transforms.lookup(self._base_frame, camera_frame, None)
        except TransformUnavailableError as error:
            if self._parameter is not None:
                return self._parameter
            raise TransformUnavailableError(
                f"the camera's mount is unknown ({error}): publish {self._base_frame} -> "
                f"{camera_frame or '(the image has no frame_id: set camera_frame)'} on /tf_static, "
                "or set mount_translation and mount_quaternion_xyzw"
            ) from error
        self._note(camera_frame, found)
        return found

    def _note(self, camera_frame: str, found: Array) -> None:
        last, self._last = self._last, (camera_frame, found)
        if last is None or last[0] != camera_frame or np.array_equal(last[1], found):
            return
        self._health.count("mount_changed")
        self._node.get_logger().warning(
            f"the mount {self._base_frame} -> {camera_frame} has changed, now at "
            f"{np.round(found[:3, 3], 3).tolist()}: poses follow it; if nobody moved the camera, two "
            "nodes publish this transform",
            throttle_duration_sec=30.0,
        )
