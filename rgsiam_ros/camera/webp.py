"""What a WebP image claims, read from its chunks without decoding it."""

from __future__ import annotations

from rgsiam_ros.errors import ImageError

HEADER = 12
"""Bytes of ``RIFF``, the size of what follows, and ``WEBP``."""
MOST_CHUNKS = 64
ANIMATION_FLAG = 0x02
START_CODE = b"\x9d\x01\x2a"
"""Of a lossy key frame (RFC 6386, section 9.1)."""


def is_webp(content: bytes) -> bool:
    """Whether the content begins as a WebP file does."""
    return content[:4] == b"RIFF" and content[8:HEADER] == b"WEBP"


def webp_size(content: bytes) -> tuple[int, int]:
    """The largest width and height, pixels, that the headers of a still image state.

    Raises ImageError for an animation, and for an image that is truncated or has no size.
    """
    end = 8 + int.from_bytes(content[4:8], "little")
    if len(content) < end:
        raise ImageError(
            f"the compressed image is truncated ({len(content)} bytes): check the network link",
            "truncated",
        )
    sizes = []
    at = HEADER
    for _ in range(MOST_CHUNKS):
        if at + 8 > end:
            break
        kind, length = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        body = content[at + 8 : min(at + 18, end)]
        if kind in (b"ANIM", b"ANMF") or (
            kind == b"VP8X" and body[:1] and body[0] & ANIMATION_FLAG
        ):
            raise ImageError(
                "the compressed image is a WebP animation: let the camera driver send single images",
                "encoding",
            )
        size = _size(kind, body)
        sizes += [size] if size is not None else []
        at += 8 + length + length % 2
    if not sizes:
        raise ImageError(
            "the compressed image is damaged (a WebP file without an image)", "damaged"
        )
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _size(kind: bytes, body: bytes) -> tuple[int, int] | None:
    if len(body) < 10 and not (kind == b"VP8L" and len(body) >= 5):
        return None
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8 " and body[3:6] == START_CODE:
        width, height = body[6:8], body[8:10]
        return int.from_bytes(width, "little") & 0x3FFF, int.from_bytes(height, "little") & 0x3FFF
    if kind == b"VP8L" and body[:1] == b"\x2f":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None
