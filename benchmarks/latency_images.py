"""The images that `node_latency.py` sends, and the calibration of their camera. Without ROS.

The images are frames of a drive, scaled to the requested width. If the requested image is higher than the
bundle's view, mirrored rows fill the rest. A 640x480 image, for example, contains a view of 16:9 as 640x360.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.recordings.rosbag import read_drive

DISTINCT_IMAGES = 24
JPEG_QUALITY = 90


def image_size(text):
    """Width and height in pixels, from ``WIDTHxHEIGHT``."""
    width, height = map(int, text.split("x"))
    return width, height


@dataclass(frozen=True)
class CameraOfSize:
    """A pinhole camera with this image size whose view contains that of `trained`."""

    trained: Camera
    width: int
    height: int

    def fields(self):
        """The arguments of `rgsiam_ros.camera.model.Camera`."""
        scale = self.width / self.trained.width
        above = (self.height - self.view_height) / 2
        t = self.trained
        return {
            "width": self.width,
            "height": self.height,
            "fx": t.fx * scale,
            "fy": t.fy * scale,
            "cx": t.cx * scale,
            "cy": t.cy * scale + above,
        }

    @property
    def view_height(self):
        """Number of rows that show the view of `trained`."""
        return round(self.trained.height * self.width / self.trained.width)


def encoded_images(drive_path, size, transport, seed):
    """The data of `DISTINCT_IMAGES` bgr8 images, or of their JPEGs, spread evenly over a drive.

    size: ``WIDTHxHEIGHT``; transport: ``raw`` or ``compressed``; seed: of the sensor noise that is added.
    """
    width, height = image_size(size)
    drive = read_drive(drive_path)
    frames = [image.decode() for image in drive.read_images()]
    random = np.random.default_rng(seed)
    encoded = []
    for index in np.linspace(0, len(frames) - 1, DISTINCT_IMAGES).round().astype(int):
        view_height = round(frames[index].shape[0] * width / frames[index].shape[1])
        image = cv2.resize(frames[index], (width, view_height), interpolation=cv2.INTER_CUBIC)
        above = (height - view_height) // 2
        image = cv2.copyMakeBorder(
            image, above, height - view_height - above, 0, 0, cv2.BORDER_REFLECT
        )
        noisy = image + random.normal(0.0, 2.0, image.shape)
        image = np.clip(noisy.round(), 0, 255).astype(np.uint8)
        if transport == "raw":
            encoded.append(image.tobytes())
        else:
            quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            encoded.append(cv2.imencode(".jpg", image, quality)[1].tobytes())
    return encoded
