"""A camera that repeats itself: the same picture again and again is no news of where the vehicle is."""

from __future__ import annotations

import zlib

from rgsiam_ros.camera.preprocessing import ImageBGR

DEFAULT_LIMIT = 3
EVERY = 4
"""Pixels of every so manieth row and column are compared; noise is in all of them."""


class FrozenCamera:
    """Counts identical images in a row. A real camera never takes the same picture twice; its noise
    differs.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        """limit: identical images in a row from which the camera is frozen; 0: never."""
        self._limit = limit
        self._last: tuple[tuple[int, ...], int] | None = None
        self._repeated = 0

    def forget(self) -> None:
        """As if no image had come yet."""
        self._last, self._repeated = None, 0

    def seen(self, image_HW3: ImageBGR) -> bool:
        """Take note of the next image; True where the camera is frozen."""
        part = image_HW3[::EVERY, ::EVERY].tobytes()
        mark = image_HW3.shape, zlib.crc32(part)
        self._repeated = self._repeated + 1 if mark == self._last else 1
        self._last = mark
        return 0 < self._limit <= self._repeated
