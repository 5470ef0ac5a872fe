"""Detect a frozen camera: a driver that publishes the same image again and again.

A pose from a repeated image says where the vehicle was, not where it is.
"""

from __future__ import annotations

import zlib

from rgsiam_ros.camera.preprocessing import ImageBGR

DEFAULT_LIMIT = 3
PIXEL_STEP = 4
"""Only every 4th row and column is compared, to save time. Noise of a working camera changes these too."""


class FrozenCamera:
    """Counts identical images in a row. Two images of a working camera differ at least in their noise."""

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        """limit: number of identical images in a row that counts as frozen; 0 turns the check off."""
        self._limit = limit
        self._last_signature: tuple[tuple[int, ...], int] | None = None
        self._repeated = 0

    def forget(self) -> None:
        """Discard all images so far."""
        self._last_signature, self._repeated = None, 0

    def observe(self, image_HW3: ImageBGR) -> bool:
        """Compare the next image with the last one; return True when the camera is frozen."""
        pixels = image_HW3[::PIXEL_STEP, ::PIXEL_STEP].tobytes()
        signature = image_HW3.shape, zlib.crc32(pixels)
        self._repeated = self._repeated + 1 if signature == self._last_signature else 1
        self._last_signature = signature
        return 0 < self._limit <= self._repeated
