"""Decode the payload of ROS image messages to BGR, without ROS.

The node on the vehicle and the readers of recordings use the same code.
"""

from __future__ import annotations

import array
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.camera.containers import (
    JPEG_START,
    PNG_START,
    Container,
    Size,
    read_jpeg,
    read_png,
)
from rgsiam_ros.camera.encodings import ENCODINGS, Pixels, to_bgr
from rgsiam_ros.camera.levels import Levels, to_8_bits
from rgsiam_ros.camera.preprocessing import LARGEST_SIDE_PX, ImageBGR
from rgsiam_ros.camera.webp import is_webp, webp_size
from rgsiam_ros.errors import ImageError

LARGEST_PIXELS = 2**26
"""Number of pixels of 8192 x 8192. A larger image is refused before memory is allocated for it."""

LARGEST_PROGRESSIVE_PIXELS = 2**24
"""The same for a JPEG of several scans, because each scan goes over all pixels."""
MOST_SCANS = 32
"""A progressive JPEG of a camera has about ten."""

VIDEO = ("h264", "h265", "hevc", "av1", "vp8", "vp9", "mpeg")
"""Words in the field ``format`` of messages that hold a piece of a video."""
VIDEO_START = b"\0\0\0\1"
"""How a piece of H.264 or H.265 begins (Annex B)."""

Payload = bytes | bytearray | memoryview | array.array | np.ndarray

REDUCED = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
}
"""Factors by which OpenCV can shrink a JPEG while it decodes it."""


def decode_message(
    message: Any, enough: Size | None = None, levels: Levels | None = None
) -> ImageBGR:
    """Decode a ``sensor_msgs/Image`` or ``CompressedImage``, of rclpy or of a bag, to ``(H, W, 3)`` uint8 BGR.

    enough: see `decode_compressed`; levels: by which 16-bit pixels are scaled to 8 bits, None for the whole range.
    Raises ImageError.
    """
    if hasattr(message, "format"):
        return decode_compressed(message.data, message.format, enough, levels)
    return decode_raw(
        message.encoding,
        message.height,
        message.width,
        message.step,
        bool(message.is_bigendian),
        message.data,
        levels,
    )


def decode_raw(
    encoding: str,
    height: int,
    width: int,
    step: int,
    is_bigendian: bool,
    data: Payload,
    levels: Levels | None = None,
) -> ImageBGR:
    """Decode the fields of a ``sensor_msgs/Image`` to ``(H, W, 3)`` uint8 BGR.

    encoding: a key of `rgsiam_ros.camera.encodings.ENCODINGS`; levels: see `decode_message`; step:
    bytes from one row to the next. The result may share memory with `data`. Raises ImageError when the
    fields do not fit each other or the encoding is not supported.
    """
    packed = check_raw(encoding, height, width, step, data)
    try:
        return to_bgr(encoding, packed, height, width, is_bigendian, levels)
    except cv2.error as error:
        raise ImageError(f"the image cannot be converted ({error.err})", "damaged") from error


def check_raw(encoding: str, height: int, width: int, step: int, data: Payload) -> Pixels:
    """The rows ``(rows, row_bytes)`` of a ``sensor_msgs/Image``, without padding, see `decode_raw`.

    They share memory with `data`. Raises ImageError.
    """
    if height == 0 or width == 0:
        raise ImageError(f"the image is empty ({width}x{height}): check the camera driver", "empty")
    layout = ENCODINGS.get(encoding)
    if layout is None:
        raise ImageError(
            f"encoding {encoding!r:.80} is not supported: publish one of {', '.join(ENCODINGS)}",
            "encoding",
        )
    _check_size(width, height)
    for name, length, must_be_even in (
        ("width", width, layout.even[0]),
        ("height", height, layout.even[1]),
    ):
        if must_be_even and length % 2:
            raise ImageError(
                f"an image of {width}x{height} cannot be {encoding}: its {name} must be even",
                "encoding",
            )
    row_bytes, rows = layout.row_bytes(width), layout.rows(height)
    if step < row_bytes:
        raise ImageError(
            f"step {step} is smaller than a row of {width} {encoding} pixels: check the camera driver",
            "truncated",
        )
    buffer = np.frombuffer(data, np.uint8)
    if buffer.size < step * (rows - 1) + row_bytes:
        raise ImageError(
            f"the image is truncated: {buffer.size} bytes for {width}x{height} {encoding} "
            f"with step {step}: check the camera driver",
            "truncated",
        )
    return np.lib.stride_tricks.as_strided(buffer, (rows, row_bytes), (step, 1), writeable=False)


def decode_compressed(
    data: Payload,
    format_text: str = "",
    enough: Size | None = None,
    levels: Levels | None = None,
) -> ImageBGR:
    """Decode the payload of a ``sensor_msgs/CompressedImage``, JPEG, PNG or WebP, to ``(H, W, 3)`` uint8 BGR.

    format_text: the message's field ``format``; enough: a JPEG may be shrunk by 2, 4 or 8, which saves time, if
    this divides its sides and leaves at least this size; None: never; levels: see `decode_message`. Raises
    ImageError when the data are not a complete JPEG, PNG or still WebP. The end marker is checked because JPEG
    decoders fill a missing part with grey without an error. What follows it is ignored: cameras and phones append
    their own data.
    """
    content = bytes(data)
    if not content:
        raise ImageError("the compressed image is empty: check the camera driver", "empty")
    if is_webp(content):
        _check_size(*webp_size(content))
        return _decoded(content, cv2.IMREAD_COLOR)
    if not content.startswith((JPEG_START, PNG_START)):
        _refuse_video(content, format_text)
    if "compressedDepth" in format_text:
        raise ImageError(
            "compressedDepth is a depth image: subscribe to the colour image", "encoding"
        )
    jpeg = content.startswith(JPEG_START)
    if not jpeg and not content.startswith(PNG_START):
        raise ImageError(
            f"the compressed image is neither JPEG nor PNG nor WebP (format {format_text!r:.80}, first bytes "
            f"{content[:4].hex()}): set the image_transport plugin to jpeg",
            "encoding",
        )
    claims = read_jpeg(content) if jpeg else read_png(content)
    for width, height in claims.sizes:
        _check_size(width, height)
    _check_scans(claims)
    if not claims.complete:
        raise ImageError(
            f"the compressed image is truncated ({len(content)} bytes): check the network link",
            "truncated",
        )
    colour = _reduced(claims.sizes, enough) if jpeg and enough is not None else cv2.IMREAD_COLOR
    if levels is not None and not jpeg:
        colour |= cv2.IMREAD_ANYDEPTH  # otherwise OpenCV takes the upper 8 of 16 bits
    image = _decoded(content, colour)
    if image.dtype == np.uint16:
        wide = image.reshape(len(image), -1).astype(np.uint16, copy=False)
        return to_8_bits(wide, levels).reshape(image.shape)
    return image


def _refuse_video(content: bytes, format_text: str) -> None:
    """Raise ImageError if this is a piece of a video, by its format or its first bytes."""
    named = next((name for name in VIDEO if name in format_text.lower()), "")
    if named or content.startswith(VIDEO_START):
        raise ImageError(
            f"{named or 'h264'} is a video, whose images depend on earlier ones: subscribe to JPEG, PNG or WebP "
            "images, or to raw ones",
            "encoding",
        )


def _decoded(content: bytes, colour: int) -> NDArray:
    """What OpenCV decodes, ``(H, W, 3)``. colour: its flag. Raises ImageError."""
    flags = colour | cv2.IMREAD_IGNORE_ORIENTATION
    image: NDArray | None
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"the compressed image is damaged ({error.err})", "damaged") from error
    if image is None:
        raise ImageError(
            f"the compressed image is damaged ({len(content)} bytes do not decode)", "damaged"
        )
    return image


def _reduced(sizes: list[Size], enough: Size) -> int:
    """The flag of OpenCV for the largest factor of `REDUCED` that fits, or for the full size."""
    for factor, flag in REDUCED.items() if len(sizes) == 1 else ():
        sides = list(zip(sizes[0], enough, strict=True))
        if all(side % factor == 0 and side // factor >= least for side, least in sides):
            return flag
    return cv2.IMREAD_COLOR


def _check_scans(claims: Container) -> None:
    largest = max((width * height for width, height in claims.sizes), default=0)
    several = claims.progressive or claims.partial or claims.scans > 1
    kind = "progressive" if claims.progressive else "partial" if claims.partial else "multi-scan"
    if claims.scans > MOST_SCANS or (several and largest > LARGEST_PROGRESSIVE_PIXELS):
        raise ImageError(
            f"a {kind} JPEG of {claims.scans} scans and {largest / 1e6:.1f} million pixels is more than "
            f"{MOST_SCANS} scans or {LARGEST_PROGRESSIVE_PIXELS / 1e6:.0f} million pixels: let the camera "
            "driver write baseline JPEGs",
            "too_large",
        )


def _check_size(width: int, height: int) -> None:
    if max(height, width) > LARGEST_SIDE_PX or width * height > LARGEST_PIXELS:
        raise ImageError(
            f"an image of {width}x{height} pixels is larger than {LARGEST_SIDE_PX} pixels on a side or "
            f"{LARGEST_PIXELS / 1e6:.0f} million pixels in total: configure the camera driver to publish "
            "smaller images",
            "too_large",
        )
