"""The camera that a ``sensor_msgs/CameraInfo`` describes, from a live topic or from a bag. No ROS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.errors import CameraError

COMPRESSED = "/compressed"
"""What image_transport adds to an image topic for compressed images."""
RECTIFIED = {"rect", "rectified"}
"""Words in the names of topics with rectified images, as image_proc gives them: ``image_rect_color``."""


@dataclass(frozen=True)
class ImagePart:
    """The part of the calibrated image that a camera sends: a region, whose pixels are binned after that."""

    x: int
    y: int
    width: int
    height: int
    binning_x: int
    binning_y: int
    whole: bool
    """Whether the region is the whole calibrated image."""

    @property
    def sent_size(self) -> tuple[int, int]:
        """Width and height of the images that are sent, pixels."""
        return self.width // self.binning_x, self.height // self.binning_y

    def check_size(self, width: int, height: int) -> None:
        """Raise CameraError if an image of this size cannot be the part.

        Images of the whole may have any resolution. An image of a smaller region must have its size, because
        an image of the same proportions could be the whole one, made smaller.
        """
        if self.whole:
            return
        wide, high = self.sent_size
        if abs(width - wide) > 1 or abs(height - high) > 1:
            raise CameraError(
                f"an image has {width}x{height} pixels, but camera_info says {wide}x{high}: a region of "
                f"{self.width}x{self.height}+{self.x}+{self.y}, binned by {self.binning_x} x "
                f"{self.binning_y}; publish the camera_info of this image"
            )

    def of(self, camera: Camera) -> Camera:
        """The camera of the images that are sent, for the camera of the calibrated image."""
        wide, high = self.sent_size
        return camera.model_copy(
            update={
                "width": wide,
                "height": high,
                "fx": camera.fx / self.binning_x,
                "fy": camera.fy / self.binning_y,
                "cx": (camera.cx - self.x) / self.binning_x,
                "cy": (camera.cy - self.y) / self.binning_y,
            }
        )


def part_of_image(info: Any) -> ImagePart:
    """The part that ``roi``, ``binning_x`` and ``binning_y`` of a CameraInfo describe. Raises CameraError.

    A region of zeros, and a binning of 0, mean the whole image and no binning.
    """
    roi = info.roi
    x, y, width, height = (int(v) for v in (roi.x_offset, roi.y_offset, roi.width, roi.height))
    full = int(info.width), int(info.height)
    if (x, y, width, height) == (0, 0, 0, 0):
        width, height = full
    binning = max(1, int(info.binning_x)), max(1, int(info.binning_y))
    part = ImagePart(x, y, width, height, *binning, whole=(x, y, width, height) == (0, 0, *full))
    if min(part.sent_size) < 1 or x + width > full[0] or y + height > full[1]:
        raise CameraError(
            f"camera_info has the region {width}x{height}+{x}+{y}, binned by {binning[0]} x {binning[1]}, "
            f"in an image of {full[0]}x{full[1]} pixels: correct its roi, binning, width and height, which "
            "are those of the calibrated image"
        )
    return part


def calibrated_camera(info: Any, *, rectified: bool = False) -> Camera:
    """The camera of the calibrated image, without region and binning. Raises CameraError.

    info: a message of ROS 2 or, with capital letters, of ROS 1; rectified: the images are rectified, so that
    P holds and there is no distortion.
    """
    if not rectified:
        k, d = (_field(info, name) for name in "kd")
        return Camera.from_camera_info(info.width, info.height, k, info.distortion_model, d)
    projection = np.asarray(_field(info, "p"), np.float64).reshape(3, 4)
    if projection[0, 0] == 0.0:
        raise CameraError("camera_info has no projection (P is zero): calibrate the camera")
    return Camera.from_camera_info(info.width, info.height, projection[:, :3], "", ())


def contradicts_rectified(info: Any, topic: str) -> bool:
    """Whether `topic` has rectified images by its name, and K and D of its CameraInfo are of raw ones."""
    if RECTIFIED.isdisjoint(topic.lower().replace("/", "_").split("_")):
        return False
    projection = np.asarray(_field(info, "p"), np.float64).reshape(3, 4)
    calibration = np.asarray(_field(info, "k"), np.float64).reshape(3, 3)
    differs = projection[0, 0] != 0.0 and not np.allclose(projection[:, :3], calibration)
    return differs or bool(np.any(_field(info, "d")))


def beside(image_topic: str) -> str:
    """The topic ``camera_info`` in the namespace of an image topic, as image_transport has it."""
    base = image_topic.removesuffix(COMPRESSED)
    return f"{base.rpartition('/')[0]}/camera_info"


def frames_differ(image_frame: str, info_frame: str) -> bool:
    """Whether image and camera_info name two different frames. A slash in front does not count."""
    names = image_frame.lstrip("/"), info_frame.lstrip("/")
    return all(names) and names[0] != names[1]


def _field(info: Any, name: str) -> Any:
    return getattr(info, name) if hasattr(info, name) else getattr(info, name.upper())
