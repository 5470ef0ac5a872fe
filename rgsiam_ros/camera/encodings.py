"""Convert the pixel encodings that camera drivers publish to 8-bit BGR, without ROS."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.camera.levels import Levels, to_8_bits

Pixels = NDArray[np.uint8]

BAYER = {
    "rggb": cv2.COLOR_BayerRGGB2BGR,
    "bggr": cv2.COLOR_BayerBGGR2BGR,
    "gbrg": cv2.COLOR_BayerGBRG2BGR,
    "grbg": cv2.COLOR_BayerGRBG2BGR,
}
BGR_FROM_YUV = np.array(
    [
        [1.164, 2.018, 0.0, -1.164 * 16 - 2.018 * 128],
        [1.164, -0.391, -0.813, -1.164 * 16 + (0.391 + 0.813) * 128],
        [1.164, 0.0, 1.596, -1.164 * 16 - 1.596 * 128],
    ]
)
"""``(3, 4)`` matrix from (Y, U, V, 1) to (B, G, R): ITU-R BT.601 with Y from 16 to 235.

OpenCV uses the same conversion for the packed YUV formats.
"""


@dataclass(frozen=True)
class Encoding:
    """The memory layout of an encoding and its conversion to BGR."""

    channels: int
    conversion: int | None = None
    """OpenCV's code for cvtColor; None: no conversion."""
    depth: int = 1
    """Bytes of one value."""
    rows_per_2: int = 2
    """Number of rows in memory for two rows of the image."""
    even: tuple[bool, bool] = (False, False)
    """Whether width and height must be even."""

    def row_bytes(self, width: int) -> int:
        """Return the number of bytes of a row without padding."""
        return width * self.channels * self.depth

    def rows(self, height: int) -> int:
        """Return the number of rows in memory for an image of this height."""
        return height * self.rows_per_2 // 2


def _supported_encodings() -> dict[str, Encoding]:
    gray, rgb, bgra, rgba = (
        cv2.COLOR_GRAY2BGR,
        cv2.COLOR_RGB2BGR,
        cv2.COLOR_BGRA2BGR,
        cv2.COLOR_RGBA2BGR,
    )
    encodings = {}
    for bits, depth in ((8, 1), (16, 2)):
        for name, channels, conversion in (
            (f"bgr{bits}", 3, None),
            (f"rgb{bits}", 3, rgb),
            (f"bgra{bits}", 4, bgra),
            (f"rgba{bits}", 4, rgba),
            (f"mono{bits}", 1, gray),
            (f"{bits}UC1", 1, gray),
            (f"{bits}UC3", 3, None),
            (f"{bits}UC4", 4, bgra),
            *((f"bayer_{order}{bits}", 1, code) for order, code in BAYER.items()),
        ):
            encodings[name] = Encoding(channels, conversion, depth)
    for name in ("yuv422", "uyvy"):
        encodings[name] = Encoding(2, cv2.COLOR_YUV2BGR_UYVY, even=(True, False))
    for name in ("yuv422_yuy2", "yuyv"):
        encodings[name] = Encoding(2, cv2.COLOR_YUV2BGR_YUY2, even=(True, False))
    encodings["nv21"] = Encoding(1, cv2.COLOR_YUV2BGR_NV21, rows_per_2=3, even=(True, True))
    encodings["nv12"] = Encoding(1, cv2.COLOR_YUV2BGR_NV12, rows_per_2=3, even=(True, True))
    encodings["nv24"] = Encoding(1, rows_per_2=6)
    return encodings


ENCODINGS = _supported_encodings()
"""Supported encodings by their name in ``sensor_msgs/Image``.

``8UC3``, ``8UC4``, ``16UC3`` and ``16UC4`` do not name their channels: BGR(A), OpenCV's order, is assumed.
"""


def to_bgr(
    name: str,
    rows: Pixels,
    height: int,
    width: int,
    is_bigendian: bool,
    levels: Levels | None = None,
) -> Pixels:
    """Convert ``(rows, row_bytes)`` bytes without padding to ``(height, width, 3)`` uint8 BGR.

    name: a key of `ENCODINGS`; levels: by which 16-bit values are scaled to 8 bits.
    """
    encoding = ENCODINGS[name]
    pixels: NDArray = np.ascontiguousarray(rows)
    if encoding.depth == 2:
        wide = pixels.view(">u2" if is_bigendian else "<u2").astype(np.uint16, copy=False)
        pixels = to_8_bits(wide, levels)
    if name == "nv24":
        return _bgr_from_nv24(pixels, height, width)
    if encoding.channels > 1:
        pixels = pixels.reshape(height, width, encoding.channels)
    if encoding.conversion is None:
        return pixels
    return cv2.cvtColor(pixels, encoding.conversion)  # type: ignore[return-value]


def _bgr_from_nv24(rows: Pixels, height: int, width: int) -> Pixels:
    """Convert NV24: the plane of Y, then a plane of interleaved U and V at full resolution."""
    chroma = rows[height:].reshape(height, width, 2)
    return cv2.transform(np.dstack([rows[:height], chroma]), BGR_FROM_YUV)  # type: ignore[return-value]
