"""Decode the payload of ROS image messages to BGR, without ROS.

Used where cv_bridge is not installed, and for what it gets wrong: padded rows and big-endian
16-bit pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.errors import ImageError
from rgsiam_ros.preprocessing import LARGEST_SIDE_PX, ImageBGR

TO_BGR = {
    "bgr8": None,
    "rgb8": cv2.COLOR_RGB2BGR,
    "bgra8": cv2.COLOR_BGRA2BGR,
    "rgba8": cv2.COLOR_RGBA2BGR,
    "mono8": cv2.COLOR_GRAY2BGR,
    "mono16": cv2.COLOR_GRAY2BGR,
}
CHANNELS = {"bgr8": 3, "rgb8": 3, "bgra8": 4, "rgba8": 4, "mono8": 1, "mono16": 1}

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PNG_START, PNG_END = b"\x89PNG", b"IEND\xaeB`\x82"


def decode_raw(
    encoding: str, height: int, width: int, step: int, is_bigendian: bool, data: bytes
) -> ImageBGR:
    """The fields of a ``sensor_msgs/Image`` to ``(H, W, 3)`` uint8 BGR.

    16-bit pixels are scaled to 8 bits. Raises ImageError naming what does not fit.
    """
    if height == 0 or width == 0:
        raise ImageError(f"the image is empty ({width}x{height}): check the camera driver")
    if encoding not in TO_BGR:
        raise ImageError(
            f"encoding {encoding!r} is not supported: publish one of {', '.join(TO_BGR)}"
        )
    if max(height, width) > LARGEST_SIDE_PX:
        raise ImageError(f"an image of {width}x{height} pixels is larger than {LARGEST_SIDE_PX}")
    depth = 2 if encoding == "mono16" else 1
    row_bytes = width * CHANNELS[encoding] * depth
    if step < row_bytes:
        raise ImageError(f"step {step} is less than a row of {width} {encoding} pixels needs")
    buffer = np.frombuffer(data, np.uint8)
    if buffer.size < step * (height - 1) + row_bytes:
        raise ImageError(
            f"the image is truncated: {buffer.size} bytes for {width}x{height} {encoding} "
            f"with step {step}"
        )
    rows = np.lib.stride_tricks.as_strided(buffer, (height, row_bytes), (step, 1), writeable=False)
    if encoding == "mono16":
        pixels = rows.copy().view(">u2" if is_bigendian else "<u2")
        gray = cv2.convertScaleAbs(pixels.astype(np.uint16), alpha=255.0 / 65535.0)
        return cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)  # type: ignore[return-value]
    image = np.ascontiguousarray(rows).reshape(height, width, CHANNELS[encoding])
    conversion = TO_BGR[encoding]
    return image if conversion is None else cv2.cvtColor(image, conversion)  # type: ignore[return-value]


def decode_compressed(data: bytes, format_text: str = "") -> ImageBGR:
    """The payload of a ``sensor_msgs/CompressedImage`` to ``(H, W, 3)`` uint8 BGR.

    JPEG and PNG; truncation is found by the missing end marker, because JPEG decoders fill the
    lost part with grey and say nothing. Raises ImageError.
    """
    content = bytes(data)
    if not content:
        raise ImageError("the compressed image is empty: check the camera driver")
    if "compressedDepth" in format_text:
        raise ImageError("compressedDepth is a depth image: subscribe to the colour image")
    if content.startswith(JPEG_START):
        complete = content.rstrip(b"\0").endswith(JPEG_END)
    elif content.startswith(PNG_START):
        complete = content.rstrip(b"\0").endswith(PNG_END)
    else:
        raise ImageError(
            f"the compressed image is neither JPEG nor PNG (format {format_text!r}, first bytes "
            f"{content[:4].hex()}): set the image_transport plugin to jpeg"
        )
    if not complete:
        raise ImageError(
            f"the compressed image is truncated ({len(content)} bytes): check the link"
        )
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image: NDArray | None
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"the compressed image is damaged ({error.err})") from error
    if image is None:
        raise ImageError(f"the compressed image is damaged ({len(content)} bytes do not decode)")
    return image  # type: ignore[return-value]
