"""The levels of 16-bit images: which part of their range becomes 8 bits, the same in the map and on the vehicle.

A camera of 12 or 14 bits uses a small part of 65536 levels, and a thermal camera a small part of that. Scaled by the
whole range, such an image has 2 to 16 grey levels left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Levels = tuple[int, int]
"""The 16-bit values that become 0 and 255. Values beyond become 0 and 255 too."""
ALL: Levels = (0, 65535)
SHARES = (0.1, 99.9)
"""Percentiles of the values between which a camera's range lies."""
MARGIN = 0.25
"""By this share of its length the measured range is extended on both sides: other light, another day."""
FEWEST_LEVELS = 8
"""An image whose values lie closer together has no contrast."""
STEP = 8
"""Only every 8th row and column is looked at, and for contrast every 16th."""

DecodeWith = Callable[[Levels], NDArray[np.uint8]]
"""Decodes one image with given levels."""


def to_8_bits(wide: NDArray[np.uint16], levels: Levels | None) -> NDArray[np.uint8]:
    """16-bit values ``(H, W)`` as 8 bits. levels: None for `ALL`."""
    low, high = levels or ALL
    above: NDArray[np.uint16] = np.maximum(wide, np.uint16(low)) - np.uint16(low)
    return cv2.convertScaleAbs(above, alpha=255.0 / (high - low))  # type: ignore[return-value]


def measured_levels(images: Sequence[DecodeWith]) -> Levels | None:
    """The levels of a camera's images, at least one. None for 8-bit images, which do not change with the levels."""
    if all(np.array_equal(image(ALL), image((0, ALL[1] // 2))) for image in images[:5]):
        return None
    low, high = _range(images, ALL)  # in steps of 257, which may be all that a camera uses
    first, last = max(0, math.floor(low - 257)), min(ALL[1], math.ceil(high + 257))
    low, high = _range(images, (first, last))
    margin = MARGIN * (high - low)
    first = max(0, round(low - margin))
    return first, min(ALL[1], max(first + 255, round(high + margin)))


def _range(images: Sequence[DecodeWith], levels: Levels) -> tuple[float, float]:
    """The 16-bit values between which most of the images' values lie, as far as these levels show."""
    values = np.concatenate([image(levels)[::STEP, ::STEP].ravel() for image in images])
    low, high = np.percentile(values, SHARES)
    unit = (levels[1] - levels[0]) / 255.0
    return levels[0] + unit * float(low), levels[0] + unit * float(high)


def has_contrast(image_HW3: NDArray[np.uint8]) -> bool:
    """Whether a channel of an 8-bit image uses at least `FEWEST_LEVELS` levels."""
    low_3, high_3 = np.percentile(image_HW3[:: 2 * STEP, :: 2 * STEP], (1.0, 99.0), axis=(0, 1))
    return bool((high_3 - low_3 >= FEWEST_LEVELS).any())
