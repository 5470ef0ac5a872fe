"""Pairs of crops that show the same points, the second one in other light, with noise, blurred and partly covered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from rgsiam_ros.features.keypoints import CELL
from rgsiam_ros.geometry.poses import Array
from rgsiam_training.config import AugmentationConfig
from rgsiam_training.data.augmentation import change_look
from rgsiam_training.features.scenes import Scene

WIDTH, HEIGHT = 256, 192
"""Of a crop, pixels of the network's image."""
LOOK = AugmentationConfig(
    brightness=0.9,
    contrast=0.6,
    saturation=0.0,
    colour_cast=0.0,
    gamma=0.95,
    haze=0.6,
    blur_share=0.15,
    occlusion_share=0.0,
    noise=0.02,
)
"""Stronger changes of light than in the training of the absolute branch."""
TWO_IMAGES_SHARE = 0.35
"""Share of the pairs that are of two images; the others are of one image with itself."""
FEWEST_SHARED = 20
"""Two images that share fewer points are no pair."""
UNMOVED_SHARE = 0.25
"""Share of the pairs of one image whose crops show exactly the same."""
COVERED_SHARE = 0.35
SMALLEST_COVER, LARGEST_COVER = 0.2, 0.6
"""Share of the images that are covered in part, and width and height of that part as a share of the image's."""


@dataclass(frozen=True)
class CropPair:
    """Two crops ``(192, 256)``, grey values 0..255."""

    first_HW: NDArray[np.float32]
    second_HW: NDArray[np.float32]
    """As recorded."""
    changed_HW: NDArray[np.float32]
    """The second crop, changed."""
    covered_HW: NDArray[np.bool_]
    """Where the changed crop shows nothing of the scene."""
    H_second_first: Array | None
    """``(3, 3)``: maps pixels of the first crop to the second, if both are of one image."""
    pixel_M2: tuple[Array, Array]
    """Pixels of the same M points in the first and in the second crop, if they are of two images."""


def draw_pair(scene: Scene, random: np.random.Generator, light: torch.Generator) -> CropPair:
    """Draw a pair. random: for the geometry; light: for the changes of light and the noise."""
    first = second = int(random.integers(len(scene)))
    pixels = np.empty((0, 2)), np.empty((0, 2))
    if random.random() < TWO_IMAGES_SHARE:
        partner = scene.partner(first, random)
        shared = scene.shared(first, partner)
        if partner != first and len(shared[0]) >= FEWEST_SHARED:
            second, pixels = partner, shared
    width, height = scene.size_wh
    if second == first:
        middle = random.uniform(0.0, 1.0, 2) * (width, height)
        middles = middle, middle + random.uniform(-20.0, 20.0, 2)
    else:
        place = int(random.integers(len(pixels[0])))
        middles = pixels[0][place], pixels[1][place]
    changed, covered = _changed(scene.image(second), random, light)
    H_first = _crop_homography(middles[0], scene.size_wh, 0.3, random)
    H_second = _crop_homography(middles[1], scene.size_wh, 1.0, random)
    if second == first and random.random() < UNMOVED_SHARE:
        H_second = H_first
    clean_first, clean_second = (
        _cropped(scene.fitted(scene.image(i)), H) for i, H in ((first, H_first), (second, H_second))
    )
    return CropPair(
        clean_first,
        clean_second,
        _cropped(scene.fitted(changed), H_second),
        _cropped(scene.fitted(covered), H_second) > 0.0,
        _inverse(H_second) @ H_first if second == first else None,
        (
            transformed(_inverse(H_first), pixels[0]),
            transformed(_inverse(H_second), pixels[1]),
        ),
    )


def stacked(images: Sequence[NDArray[np.float32]]) -> torch.Tensor:
    """Crops as the network takes them, ``(B, 1, 192, 256)``."""
    return torch.from_numpy(np.stack(images))[:, None]


def transformed(H_33: Array, pixel_M2: Array) -> Array:
    """Pixels ``(M, 2)`` after a homography."""
    moved = np.hstack([pixel_M2, np.ones((len(pixel_M2), 1))]) @ H_33.T
    return moved[:, :2] / moved[:, 2:]


def inside(pixel_M2: Array, border: int = CELL // 2) -> NDArray[np.bool_]:
    """Which pixels lie in a crop, `border` pixels from its edge."""
    low, high = border, np.array([WIDTH, HEIGHT]) - 1 - border
    return np.all((pixel_M2 >= low) & (pixel_M2 <= high), axis=1)


def _changed(
    grey_HW: NDArray[np.uint8], random: np.random.Generator, light: torch.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The image in other light, covered in part, and where it is covered (255, else 0)."""
    image = torch.from_numpy(grey_HW).float()[None, None] / 255.0
    looked = change_look(image.expand(1, 3, -1, -1), LOOK, light)[0, 0].numpy()
    changed = (255.0 * looked).astype(np.uint8)  # a dark image has few grey levels
    covered = np.zeros_like(changed)
    if random.random() < COVERED_SHARE:
        size = random.uniform(SMALLEST_COVER, LARGEST_COVER, 2) * changed.shape
        y, x = (random.uniform(0.0, 1.0, 2) * (changed.shape - size)).astype(int)
        part = slice(y, y + int(size[0])), slice(x, x + int(size[1]))
        changed[part], covered[part] = random.integers(256), 255
    return changed, covered


def _inverse(H_33: Array) -> Array:
    return np.linalg.inv(H_33).astype(np.float64)


def _cropped(image_HW: NDArray[np.float32], H_image_crop: Array) -> NDArray[np.float32]:
    return cv2.warpPerspective(  # type: ignore[return-value]
        image_HW,
        H_image_crop,
        (WIDTH, HEIGHT),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _crop_homography(
    middle: Array, size_wh: tuple[int, int], amount: float, random: np.random.Generator
) -> Array:
    """Maps pixels of a crop to the image. amount: 0 for no rotation, scale and perspective, 1 for the most."""
    size = np.array([WIDTH, HEIGHT], np.float64)
    start = np.clip(middle - size / 2.0, 0.0, np.maximum(np.array(size_wh) - size, 0.0))
    corner_42 = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * size
    angle = amount * np.radians(random.uniform(-8.0, 8.0))
    scale = np.exp(amount * random.uniform(-0.25, 0.25))
    R = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = (corner_42 - size / 2.0) @ R.T + size / 2.0 + start
    moved += amount * random.uniform(-0.06, 0.06, (4, 2)) * size
    return cv2.getPerspectiveTransform(  # type: ignore[return-value]
        corner_42.astype(np.float32), moved.astype(np.float32)
    )
