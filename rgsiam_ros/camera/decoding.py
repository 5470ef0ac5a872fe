"""Decode the payload of ROS image messages to BGR, without ROS.

The node on the vehicle and the readers of recordings use the same code.
"""

from __future__ import annotations

import array
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.camera.encodings import ENCODINGS, Pixels, to_bgr
from rgsiam_ros.camera.preprocessing import LARGEST_SIDE_PX, ImageBGR
from rgsiam_ros.camera.webp import is_webp, webp_size
from rgsiam_ros.errors import ImageError

LARGEST_PIXELS = 2**26
"""Number of pixels of 8192 x 8192. A larger image is refused before memory is allocated for it."""

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PNG_START, PNG_END = b"\x89PNG", b"IEND\xaeB`\x82"
JPEG_SCAN = 0xDA
JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_WITHOUT_CONTENT = {0x01, *range(0xD0, 0xD9)}
"""Marker codes that no length field follows (ITU-T T.81, table B.1)."""

VIDEO = ("h264", "h265", "hevc", "av1", "vp8", "vp9", "mpeg")
"""Words in the field ``format`` of messages that hold a piece of a video."""
VIDEO_START = b"\0\0\0\1"
"""How a piece of H.264 or H.265 begins (Annex B)."""

Payload = bytes | bytearray | memoryview | array.array | np.ndarray


Size = tuple[int, int]
"""Width and height, pixels."""
REDUCED = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
}
"""Factors by which OpenCV can shrink a JPEG while it decodes it."""


def decode_message(message: Any, enough: Size | None = None) -> ImageBGR:
    """Decode a ``sensor_msgs/Image`` or ``CompressedImage``, of rclpy or of a bag, to ``(H, W, 3)`` uint8 BGR.

    enough: see `decode_compressed`. Raises ImageError.
    """
    if hasattr(message, "format"):
        return decode_compressed(message.data, message.format, enough)
    return decode_raw(
        message.encoding,
        message.height,
        message.width,
        message.step,
        bool(message.is_bigendian),
        message.data,
    )


def decode_raw(
    encoding: str, height: int, width: int, step: int, is_bigendian: bool, data: Payload
) -> ImageBGR:
    """Decode the fields of a ``sensor_msgs/Image`` to ``(H, W, 3)`` uint8 BGR.

    encoding: a key of `rgsiam_ros.camera.encodings.ENCODINGS`; 16-bit pixels are scaled to 8 bits; step:
    bytes from one row to the next. The result may share memory with `data`. Raises ImageError when the
    fields do not fit each other or the encoding is not supported.
    """
    packed = check_raw(encoding, height, width, step, data)
    try:
        return to_bgr(encoding, packed, height, width, is_bigendian)
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
            f"encoding {encoding!r} is not supported: publish one of {', '.join(ENCODINGS)}",
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


def decode_compressed(data: Payload, format_text: str = "", enough: Size | None = None) -> ImageBGR:
    """Decode the payload of a ``sensor_msgs/CompressedImage``, JPEG, PNG or WebP, to ``(H, W, 3)`` uint8 BGR.

    format_text: the message's field ``format``; enough: a JPEG may be shrunk by 2, 4 or 8, which saves time, if
    this divides its sides and leaves at least this size; None: never. Raises ImageError when the data are not a complete JPEG,
    PNG or still WebP. The end marker is checked because JPEG decoders fill a missing part with grey without an error.
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
    if content.startswith(JPEG_START):
        complete = content.rstrip(b"\0").endswith(JPEG_END)
    elif content.startswith(PNG_START):
        complete = content.rstrip(b"\0").endswith(PNG_END)
    else:
        raise ImageError(
            f"the compressed image is neither JPEG nor PNG nor WebP (format {format_text!r}, first bytes "
            f"{content[:4].hex()}): set the image_transport plugin to jpeg",
            "encoding",
        )
    if not complete:
        raise ImageError(
            f"the compressed image is truncated ({len(content)} bytes): check the network link",
            "truncated",
        )
    sizes = list(_sizes(content))
    for width, height in sizes:
        _check_size(width, height)
    jpeg = content.startswith(JPEG_START)
    colour = _reduced(sizes, enough) if jpeg and enough is not None else cv2.IMREAD_COLOR
    return _decoded(content, colour)


def _refuse_video(content: bytes, format_text: str) -> None:
    """Raise ImageError if this is a piece of a video, by its format or its first bytes."""
    named = next((name for name in VIDEO if name in format_text.lower()), "")
    if named or content.startswith(VIDEO_START):
        raise ImageError(
            f"{named or 'h264'} is a video, whose images depend on earlier ones: subscribe to JPEG, PNG or WebP "
            "images, or to raw ones",
            "encoding",
        )


def _decoded(content: bytes, colour: int) -> ImageBGR:
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
    return image  # type: ignore[return-value]


def _reduced(sizes: list[Size], enough: Size) -> int:
    """The flag of OpenCV for the largest factor of `REDUCED` that fits, or for the full size."""
    for factor, flag in REDUCED.items() if len(sizes) == 1 else ():
        sides = list(zip(sizes[0], enough, strict=True))
        if all(side % factor == 0 and side // factor >= least for side, least in sides):
            return flag
    return cv2.IMREAD_COLOR


def _check_size(width: int, height: int) -> None:
    if max(height, width) > LARGEST_SIDE_PX or width * height > LARGEST_PIXELS:
        raise ImageError(
            f"an image of {width}x{height} pixels is larger than {LARGEST_SIDE_PX} pixels on a side or "
            f"{LARGEST_PIXELS / 1e6:.0f} million pixels in total: configure the camera driver to publish "
            "smaller images",
            "too_large",
        )


def _sizes(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield each width and height, pixels, that the headers of a JPEG or PNG state; nothing without a header.

    Bytes between two JPEG segments are skipped, as libjpeg does.
    """
    if content.startswith(PNG_START):
        yield int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
        return
    at = len(JPEG_START)
    while 0 <= (at := content.find(b"\xff", at)) <= len(content) - 9:
        marker = content[at + 1]
        if marker in (0x00, 0xFF) or marker in JPEG_WITHOUT_CONTENT:  # fill byte, or no content
            at += 1 if marker == 0xFF else 2
            continue
        if marker in JPEG_FRAMES:
            height, width = content[at + 5 : at + 7], content[at + 7 : at + 9]
            yield int.from_bytes(width, "big"), int.from_bytes(height, "big")
        if marker == JPEG_SCAN:
            return
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
