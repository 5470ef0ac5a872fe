"""The images that `node_latency.py` sends, and the camera that they are said to be of. No ROS.

Frames of a drive, scaled up to the width asked for. Where the size is taller than the bundle's view the rest
is filled with mirrored rows, and the camera contains the view: 640x480 holds a view of 16:9 as 640x360.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.recordings.rosbag import read_drive

DISTINCT = 24
JPEG_QUALITY = 90


def image_size(text):
    """``WIDTHxHEIGHT`` to numbers."""
    width, height = map(int, text.split("x"))
    return width, height


@dataclass(frozen=True)
class CameraOfSize:
    """A pinhole camera of this image size that shows all that `trained` shows."""

    trained: Camera
    width: int
    height: int

    def fields(self):
        """As arguments of `rgsiam_ros.camera.model.Camera`."""
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
        """Rows that show what the trained camera shows."""
        return round(self.trained.height * self.width / self.trained.width)


def encoded_images(drive_path, size, transport, seed):
    """Bytes of `DISTINCT` bgr8 images, or of their JPEGs; drawn evenly, with the sensor noise of a seed."""
    width, height = image_size(size)
    drive = read_drive(drive_path)
    every = [image.decode() for image in drive.read_images()]
    random = np.random.default_rng(seed)
    found = []
    for place in np.linspace(0, len(every) - 1, DISTINCT).round().astype(int):
        view_height = round(every[place].shape[0] * width / every[place].shape[1])
        image = cv2.resize(every[place], (width, view_height), interpolation=cv2.INTER_CUBIC)
        above = (height - view_height) // 2
        image = cv2.copyMakeBorder(
            image, above, height - view_height - above, 0, 0, cv2.BORDER_REFLECT
        )
        noisy = image + random.normal(0.0, 2.0, image.shape)
        image = np.clip(noisy.round(), 0, 255).astype(np.uint8)
        if transport == "raw":
            found.append(image.tobytes())
        else:
            quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            found.append(cv2.imencode(".jpg", image, quality)[1].tobytes())
    return found
