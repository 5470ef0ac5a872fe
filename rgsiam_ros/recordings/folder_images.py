"""The image files of a folder of posed images, see `rgsiam_ros.recordings.folder_writer`."""

from __future__ import annotations

import cv2
import numpy as np

from rgsiam_ros.camera.containers import JPEG_START, PNG_START
from rgsiam_ros.camera.decoding import check_raw
from rgsiam_ros.camera.encodings import ENCODINGS
from rgsiam_ros.camera.model import Camera
from rgsiam_ros.errors import DatasetError
from rgsiam_ros.recordings.bag_topics import OPTIONS
from rgsiam_ros.recordings.rosbag_dataset import BagImage

MONO_16 = ("mono16", "16UC1")
"""Encodings of 16 bits that a PNG file can hold as they are."""


def ending(image: BagImage, changed: bool) -> str:
    """The ending of the image file. changed: whether the image is undistorted."""
    message = image.image.message
    if changed or not hasattr(message, "format"):
        return ".png"
    start = message.data[:12].tobytes()
    if start.startswith(JPEG_START):
        return ".jpg"
    return ".png" if start.startswith(PNG_START) else ".webp"


def stored(image: BagImage, maps: tuple[np.ndarray, np.ndarray] | None) -> bytes:
    """The bytes of the image file. A compressed image stays as it is, unless it is undistorted."""
    message = image.image.message
    if maps is not None:
        pixels = image.decode()
        if pixels.shape[:2] != maps[0].shape:
            raise DatasetError(
                f"{image.bag}: image at stamp {image.image.stamp_ns} ns does not have the size of its camera_info: leave out "
                "--undistort"
            )
        return _png(cv2.remap(pixels, *maps, cv2.INTER_LINEAR))
    if hasattr(message, "format"):
        return image.content
    encoding = ENCODINGS.get(message.encoding)
    if encoding is None or encoding.depth == 1:
        return _png(image.decode())
    if message.encoding not in MONO_16:
        raise DatasetError(
            f"{image.bag}: images of encoding {message.encoding} cannot be stored without loss: use the bag itself, or "
            f"another topic ({OPTIONS['image']})"
        )
    rows = check_raw(message.encoding, message.height, message.width, message.step, message.data)
    order = ">u2" if message.is_bigendian else "<u2"
    return _png(np.ascontiguousarray(rows).view(order).astype(np.uint16))


def _png(pixels: np.ndarray) -> bytes:
    done, content = cv2.imencode(".png", pixels)
    assert done
    return content.tobytes()


def pinhole(camera: Camera) -> Camera:
    """The same camera without lens distortion."""
    return camera.model_copy(update={"distortion_model": "none", "distortion": ()})


def undistortion(camera: Camera) -> tuple[np.ndarray, np.ndarray] | None:
    """Where each pixel of the undistorted image, of the same matrix K, lies in the recorded one."""
    if camera.distortion_model == "none":
        return None
    lens = cv2.fisheye if camera.distortion_model == "equidistant" else cv2
    size = (camera.width, camera.height)
    return lens.initUndistortRectifyMap(
        camera.K, np.array(camera.distortion), np.eye(3), camera.K, size, cv2.CV_32FC1
    )
