"""Decode the payload of ROS image messages to BGR, without ROS: one way for vehicle and recordings."""

from __future__ import annotations

import array
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.camera.encodings import ENCODINGS, to_bgr
from rgsiam_ros.camera.preprocessing import LARGEST_SIDE_PX, ImageBGR
from rgsiam_ros.errors import ImageError

LARGEST_PIXELS = 2**26
"""8192 by 8192: more is refused before memory is taken for it."""

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PNG_START, PNG_END = b"\x89PNG", b"IEND\xaeB`\x82"
JPEG_SCAN = 0xDA
JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_ALONE = {0x01, *range(0xD0, 0xD9)}

Payload = bytes | bytearray | memoryview | array.array


def decode_raw(
    encoding: str, height: int, width: int, step: int, is_bigendian: bool, data: Payload
) -> ImageBGR:
    """The fields of a ``sensor_msgs/Image`` to ``(H, W, 3)`` uint8 BGR.

    Every encoding of `rgsiam_ros.camera.encodings.ENCODINGS`; 16-bit pixels are scaled to 8 bits. The picture may
    share the data's memory. Raises ImageError naming what does not fit.
    """
    if height == 0 or width == 0:
        raise ImageError(f"the image is empty ({width}x{height}): check the camera driver", "empty")
    known = ENCODINGS.get(encoding)
    if known is None:
        raise ImageError(
            f"encoding {encoding!r} is not supported: publish one of {', '.join(ENCODINGS)}",
            "encoding",
        )
    _check_size(width, height)
    for name, length, even in (("width", width, known.even[0]), ("height", height, known.even[1])):
        if even and length % 2:
            raise ImageError(
                f"an image of {width}x{height} cannot be {encoding}: its {name} must be even",
                "encoding",
            )
    row_bytes, rows = known.row_bytes(width), known.rows(height)
    if step < row_bytes:
        raise ImageError(
            f"step {step} is less than a row of {width} {encoding} pixels needs: check the camera "
            "driver",
            "truncated",
        )
    buffer = np.frombuffer(data, np.uint8)
    if buffer.size < step * (rows - 1) + row_bytes:
        raise ImageError(
            f"the image is truncated: {buffer.size} bytes for {width}x{height} {encoding} "
            f"with step {step}",
            "truncated",
        )
    packed = np.lib.stride_tricks.as_strided(buffer, (rows, row_bytes), (step, 1), writeable=False)
    try:
        return to_bgr(encoding, packed, height, width, is_bigendian)
    except cv2.error as error:
        raise ImageError(f"the image cannot be converted ({error.err})", "damaged") from error


def decode_compressed(data: Payload, format_text: str = "") -> ImageBGR:
    """The payload of a ``sensor_msgs/CompressedImage`` to ``(H, W, 3)`` uint8 BGR.

    JPEG and PNG; truncation is found by the missing end marker, because JPEG decoders fill the
    lost part with grey and say nothing. Raises ImageError.
    """
    content = bytes(data)
    if not content:
        raise ImageError("the compressed image is empty: check the camera driver", "empty")
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
            f"the compressed image is neither JPEG nor PNG (format {format_text!r}, first bytes "
            f"{content[:4].hex()}): set the image_transport plugin to jpeg",
            "encoding",
        )
    if not complete:
        raise ImageError(
            f"the compressed image is truncated ({len(content)} bytes): check the link", "truncated"
        )
    for width, height in _sizes(content):
        _check_size(width, height)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
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


def _check_size(width: int, height: int) -> None:
    if max(height, width) > LARGEST_SIDE_PX or width * height > LARGEST_PIXELS:
        raise ImageError(
            f"an image of {width}x{height} pixels is larger than {LARGEST_SIDE_PX} on a side or "
            f"{LARGEST_PIXELS / 1e6:.0f} million in all: let the camera driver shrink it",
            "too_large",
        )


def _sizes(content: bytes) -> Iterator[tuple[int, int]]:
    """Width and height as the header of a JPEG or PNG claims them; nothing where there is none.

    libjpeg skips bytes between segments that belong to none, so this does too.
    """
    if content.startswith(PNG_START):
        yield int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
        return
    at = len(JPEG_START)
    while 0 <= (at := content.find(b"\xff", at)) <= len(content) - 9:
        kind = content[at + 1]
        if kind in (0x00, 0xFF) or kind in JPEG_ALONE:  # filling, or a marker without content
            at += 1 if kind == 0xFF else 2
            continue
        if kind in JPEG_FRAMES:
            height, width = content[at + 5 : at + 7], content[at + 7 : at + 9]
            yield int.from_bytes(width, "big"), int.from_bytes(height, "big")
        if kind == JPEG_SCAN:
            return
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
