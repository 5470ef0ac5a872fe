"""WebP images: still ones are decoded, animations and claims of a huge size are refused before decoding."""

import cv2
import numpy as np
import pytest

from rgsiam_ros.camera.decoding import decode_compressed
from rgsiam_ros.errors import ImageError

IMAGE = np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)


def webp(quality=101):
    """A WebP image; a quality above 100 is without loss."""
    return cv2.imencode(".webp", IMAGE, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()


def file_of(*chunks):
    body = b"WEBP" + b"".join(
        kind + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2)
        for kind, data in chunks
    )
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def extended(width, height, flags=0):
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X", bytes([flags, 0, 0, 0]) + sides


def test_webp_with_and_without_loss():
    np.testing.assert_array_equal(decode_compressed(webp()), IMAGE)
    assert decode_compressed(webp(80), "webp").shape == IMAGE.shape
    assert decode_compressed(webp() + b"trailing").shape == IMAGE.shape


@pytest.mark.parametrize(
    ("content", "message", "cause"),
    [
        (webp()[:-20], "truncated", "truncated"),
        (file_of(), "without an image", "damaged"),
        (file_of((b"ALPH", b"x" * 20)), "without an image", "damaged"),
        (file_of(extended(17, 12, flags=2)), "WebP animation", "encoding"),
        (file_of(extended(17, 12), (b"ANMF", b"x" * 20)), "WebP animation", "encoding"),
        (file_of(extended(60_000, 60_000)), "60000x60000 pixels is larger", "too_large"),
        (
            file_of((b"VP8L", b"\x2f" + ((16383 << 14) | 16383).to_bytes(4, "little"))),
            "16384x16384 pixels is larger",
            "too_large",
        ),
        (
            file_of((b"VP8 ", b"\0\0\0\x9d\x01\x2a\xff\x3f\xff\x3f")),
            "16383x16383 pixels is larger",
            "too_large",
        ),
        (file_of(extended(17, 12), (b"VP8 ", b"x" * 20)), "damaged", "damaged"),
    ],
)
def test_bad_webp_images_are_named(content, message, cause):
    with pytest.raises(ImageError, match=message) as caught:
        decode_compressed(content)
    assert caught.value.cause == cause


@pytest.mark.parametrize(
    ("content", "format_text", "name"),
    [
        (b"\0\0\0\1\x67whatever", "h264", "h264"),
        (b"\0\0\0\1\x40whatever", "hevc", "hevc"),
        (b"\0\0\0\1\x67whatever", "", "h264"),
        (b"anything", "libx264; H264", "h264"),
    ],
)
def test_a_piece_of_a_video_is_refused_by_name(content, format_text, name):
    with pytest.raises(ImageError, match=f"^{name} is a video.*subscribe to JPEG") as caught:
        decode_compressed(content, format_text)
    assert caught.value.cause == "encoding"
