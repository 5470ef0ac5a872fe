"""Spoil grey images of the local features' size: what a camera may see on another day, and what it never saw.

The trust threshold and the covariance of a map are fitted on them too. See `rgsiam_ros.mapping.validation`.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]

NIGHT_GAMMA, NIGHT_LIGHT, NIGHT_NOISE = 2.0, 0.3, 3.0
"""Exponent, share of the light, and standard deviation of the noise in grey levels."""
BLUR_PX = 5
SMALL_COVER, LARGE_COVER = 0.5, 0.7
"""Sides of a rectangle that hides a part of the image, as a share of the image's sides."""


def spoilt(image_HW: Grey, random: np.random.Generator) -> list[Grey]:
    """The image in the dark with noise, blurred along its rows, and with a quarter and a half of it covered."""
    dark = 255.0 * NIGHT_LIGHT * (image_HW / 255.0) ** NIGHT_GAMMA
    dark += random.normal(0.0, NIGHT_NOISE, image_HW.shape)
    blurred = cv2.blur(image_HW, (BLUR_PX, 1))
    return [
        np.clip(dark, 0, 255).astype(np.uint8),
        np.asarray(blurred, np.uint8),
        _covered(image_HW, SMALL_COVER, random),
        _covered(image_HW, LARGE_COVER, random),
    ]


def mirrored(image_HW: Grey) -> Grey:
    """The image with left and right exchanged: a place that could exist, but that the map never saw."""
    return np.ascontiguousarray(image_HW[:, ::-1])


def _covered(image_HW: Grey, share: float, random: np.random.Generator) -> Grey:
    height, width = (round(share * side) for side in image_HW.shape)
    top = int(random.integers(0, image_HW.shape[0] - height + 1))
    left = int(random.integers(0, image_HW.shape[1] - width + 1))
    covered = image_HW.copy()
    covered[top : top + height, left : left + width] = int(random.integers(0, 256))
    return covered
