"""Corrupt images so that no pose can be estimated from them.

The calibration uses the corrupted images to learn when the vehicle is lost.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from rgsiam_ros.camera.preprocessing import ImageBGR


def covered(image_HW3: ImageBGR, random: np.random.Generator) -> ImageBGR:
    """A covered lens (mud, a hand, a lens cap): one colour with a soft gradient and a little noise."""
    height, width = image_HW3.shape[:2]
    colour = random.uniform(10.0, 200.0) * random.uniform(0.8, 1.2, size=3)
    slope = random.uniform(-0.4, 0.4, size=2)
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    light = 1.0 + slope[0] * y + slope[1] * x
    return _image(light[..., None] * colour + random.normal(0.0, 3.0, image_HW3.shape))


def night(image_HW3: ImageBGR, random: np.random.Generator) -> ImageBGR:
    """Darkness: 2 to 6 % of the light, and the sensor's noise."""
    gain = random.uniform(0.02, 0.06)
    return _image(gain * image_HW3 + random.normal(0.0, 2.0, image_HW3.shape))


def blurred(image_HW3: ImageBGR, random: np.random.Generator) -> ImageBGR:
    """Out of focus: a Gaussian blur whose sigma is 5 to 10 % of the image width."""
    sigma = image_HW3.shape[1] * random.uniform(0.05, 0.10)
    return cv2.GaussianBlur(image_HW3, (0, 0), sigma)  # type: ignore[return-value]


def rotated(image_HW3: ImageBGR, random: np.random.Generator) -> ImageBGR:
    """A camera that was turned by 90, 180 or 270 degrees about its optical axis."""
    height, width = image_HW3.shape[:2]
    turned = np.rot90(image_HW3, int(random.integers(1, 4)))
    return cv2.resize(np.ascontiguousarray(turned), (width, height))  # type: ignore[return-value]


def noise(image_HW3: ImageBGR, random: np.random.Generator) -> ImageBGR:
    """A broken cable: noise in place of the image, with a grain of 1 to 8 pixels."""
    height, width = image_HW3.shape[:2]
    grain = int(random.integers(1, 9))
    coarse = random.integers(0, 256, (height // grain + 1, width // grain + 1, 3), np.uint8)
    return np.repeat(np.repeat(coarse, grain, axis=0), grain, axis=1)[:height, :width]


CORRUPTIONS: dict[str, Callable[[ImageBGR, np.random.Generator], ImageBGR]] = {
    "covered": covered,
    "night": night,
    "blurred": blurred,
    "rotated": rotated,
    "noise": noise,
}
"""By name: a function from a BGR uint8 image ``(H, W, 3)`` and a random generator to the corrupted image."""


def _image(values: np.ndarray) -> ImageBGR:
    return np.clip(np.round(values), 0.0, 255.0).astype(np.uint8)
