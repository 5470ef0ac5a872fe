"""Choose at the start how images are decoded: raw 8-bit ones by cv_bridge, where it can be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sensor_msgs.msg import Image

from rgsiam_ros.camera.decoding import Size, check_raw, decode_message
from rgsiam_ros.camera.encodings import ENCODINGS
from rgsiam_ros.camera.preprocessing import ImageBGR

Decode = Callable[[Any, "Size | None"], ImageBGR]
"""Decodes a message, see `rgsiam_ros.camera.decoding.decode_message`."""
CV_BRIDGE_ENCODINGS = (
    *("bgr8", "rgb8", "bgra8", "rgba8", "mono8", "yuv422", "yuv422_yuy2"),
    *(f"bayer_{order}8" for order in ("rggb", "bggr", "gbrg", "grbg")),
)
"""What cv_bridge converts to BGR. Its Python interface cuts off the chroma of nv21 and nv24."""


class CvBridgeDecoder:
    """Decodes with cv_bridge what it can decode, and everything else as `decode_message` does."""

    def __init__(self) -> None:
        """Raises an error if cv_bridge is missing, broken, or gives other pixels than we do."""
        from cv_bridge import CvBridge

        self._bridge = CvBridge()
        for encoding in CV_BRIDGE_ENCODINGS:
            message = sample(encoding)
            if not np.array_equal(self.convert(message), decode_message(message)):
                raise ValueError(f"it gives other pixels for {encoding}")

    def __call__(self, message: Any, enough: Size | None) -> ImageBGR:
        """The image ``(H, W, 3)``, uint8 BGR. Raises ImageError."""
        if not takes(message):
            return decode_message(message, enough)
        check_raw(message.encoding, message.height, message.width, message.step, message.data)
        return self.convert(message)

    def convert(self, message: Image) -> ImageBGR:
        """The image by cv_bridge alone."""
        return np.asarray(self._bridge.imgmsg_to_cv2(message, "bgr8"))


def takes(message: Any) -> bool:
    """Whether cv_bridge decodes this message right.

    It does not check the size, takes a step for whole pixels, and swaps the bytes of big-endian images by a method
    that numpy 2 lacks.
    """
    if hasattr(message, "format") or message.encoding not in CV_BRIDGE_ENCODINGS:
        return False
    whole_pixels = message.step % ENCODINGS[message.encoding].channels == 0
    whole_rows = len(message.data) >= message.step * message.height
    return whole_pixels and whole_rows and not message.is_bigendian


def sample(encoding: str, width: int = 34, height: int = 22) -> Image:
    """A raw image of random bytes, with two bytes or pixels of padding in each row."""
    channels = ENCODINGS[encoding].channels
    message = Image(encoding=encoding, width=width, height=height, step=(width + 2) * channels)
    pixels = np.random.default_rng(0).integers(0, 256, message.step * height, np.uint8)
    message.data = pixels.tobytes()
    return message


def choose_decoder(log: Any) -> Decode:
    """The function that decodes images, named in the log."""
    ours = "raw images are decoded by rgsiam_ros alone"
    try:
        decoder = CvBridgeDecoder()
    except ModuleNotFoundError as error:
        log.info(f"{ours}, because {error.name} is not installed")
    except Exception as error:  # its binaries fail in many ways with another numpy
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        log.warning(f"{ours}, because cv_bridge cannot be used ({reason})")
    else:
        log.info("raw 8-bit images are decoded by cv_bridge")
        return decoder
    return decode_message
