"""What a compressed image claims, read from the markers of a JPEG or the chunks of a PNG, without decoding it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from rgsiam_ros.errors import ImageError

Size = tuple[int, int]
"""Width and height, pixels."""

JPEG_START, PNG_START = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
START, END, SCAN = 0xD8, 0xD9, 0xDA
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]", re.DOTALL)
"""A marker with a meaning: no stuffed or fill byte, no restart inside a scan (ITU-T T.81, table B.1)."""
MOST_PARTS = 4096
"""Most segments of a JPEG."""
MOST_CHUNKS = 65_536
"""Most chunks of a PNG."""
PNG_HEADER, PNG_ANIMATION = b"IHDR", (b"acTL", b"fcTL", b"fdAT")


@dataclass
class Container:
    """A JPEG's or PNG's headers up to its end. What follows the end is ignored."""

    sizes: list[Size] = field(default_factory=list)
    """Each size that a header states."""
    scans: int = 0
    """How often a JPEG goes over its pixels."""
    progressive: bool = False
    partial: bool = False
    """Whether a scan of a JPEG has fewer components than a frame: then the whole image is kept as coefficients."""
    complete: bool = False
    """Whether the end marker is there."""


def read_jpeg(content: bytes) -> Container:
    """The headers of a JPEG. Bytes between two segments are skipped, as libjpeg does.

    Raises ImageError for more than `MOST_PARTS` segments.
    """
    found, components = Container(), 0
    at = len(JPEG_START)
    for _ in range(MOST_PARTS):
        match = MARKER.search(content, at)
        if match is None:
            return found
        at = match.start()
        marker = content[at + 1]
        if marker == START:  # another image begins before the end of this one
            return found
        if marker == END:
            found.complete = True
            return found
        if marker in FRAMES and at + 9 <= len(content):
            height, width = content[at + 5 : at + 7], content[at + 7 : at + 9]
            found.sizes.append((int.from_bytes(width, "big"), int.from_bytes(height, "big")))
            found.progressive |= marker in PROGRESSIVE
            components = max(components, int.from_bytes(content[at + 9 : at + 10], "big"))
        if marker == SCAN:
            found.scans += 1
            found.partial |= int.from_bytes(content[at + 4 : at + 5], "big") < components
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    raise ImageError(f"the compressed image is damaged (over {MOST_PARTS} segments)", "damaged")


def read_png(content: bytes) -> Container:
    """The header of a PNG, and whether its last chunk is there.

    Raises ImageError for an animation, whose every frame takes memory of its own, for a PNG without its one
    header at the start (PNG specification, 5.6), and for too many chunks.
    """
    found = Container()
    at = len(PNG_START)
    for _ in range(MOST_CHUNKS):
        length = int.from_bytes(content[at : at + 4], "big")
        if at + 12 + length > len(content):  # also of the last chunk: a decoder takes memory for it
            return found
        kind = content[at + 4 : at + 8]
        if (kind == PNG_HEADER) != (at == len(PNG_START)):
            raise ImageError(
                "the compressed image is damaged (a PNG begins with its one header): check the camera driver",
                "damaged",
            )
        if kind in PNG_ANIMATION:
            raise ImageError(
                "the compressed image is a PNG animation: let the camera driver send single images",
                "encoding",
            )
        if kind == PNG_HEADER:
            width, height = content[at + 8 : at + 12], content[at + 12 : at + 16]
            found.sizes.append((int.from_bytes(width, "big"), int.from_bytes(height, "big")))
        if kind == b"IEND":
            found.complete = True
            return found
        at += 12 + length
    raise ImageError(f"the compressed image is damaged (over {MOST_CHUNKS} chunks)", "damaged")
