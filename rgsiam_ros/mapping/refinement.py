"""Refine noisy mapping poses: verify matches without the poses, then adjust poses and points together.

1. Pairs are chosen by the given poses, and their matches are verified by an essential matrix (`two_view`).
2. Matches are joined to tracks. The longest tracks of each image are triangulated with a wide limit.
3. Poses and points are adjusted (`adjustment`), with the given poses as priors, and triangulated again with a
   narrower limit, some times. How far the poses moved is the new standard deviation of the priors.
4. All matches of all pairs are checked once more, now with the refined poses, and adjusted a last time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.features.matching import Matches
from rgsiam_ros.geometry.poses import Array, invert, pose_errors
from rgsiam_ros.geometry.units import angle_text, length_text
from rgsiam_ros.mapping.adjustment import Observations, Priors, adjust
from rgsiam_ros.mapping.matching import EPIPOLAR_PX, MapImage, proposed_matches
from rgsiam_ros.mapping.pairs import epipolar_distances, neighbour_pairs
from rgsiam_ros.mapping.points import LIMIT_PX, points_of_tracks
from rgsiam_ros.mapping.progress import Progress
from rgsiam_ros.mapping.selection import best_points
from rgsiam_ros.mapping.tracks import join_matches
from rgsiam_ros.mapping.two_view import TwoView, verify

logger = logging.getLogger(__name__)

Refine = Literal["auto", "on", "off"]

LARGEST_RATIO = 2.0
"""Poses are refined if verified matches are this many times farther from the epipolar lines of the given poses than
from those of their own essential matrix. Good labels gave 1.1 to 1.6."""
SAMPLE = 300
"""Number of pairs on which this is decided."""
FEWEST_PAIRS = 20
"""Fewer verified pairs decide nothing."""
FEWEST_IMAGES = 3
"""A point must be seen by this many images. Two noisy poses always agree on some point."""
POINTS_PER_IMAGE = 150
STEPS = 30
MEDIAN_NORM = 1.538
"""Median length of a vector of three normal numbers with the standard deviation 1."""
SMALLEST_SIGMA_M, SMALLEST_SIGMA_RAD = 1e-3, np.radians(0.05)


@dataclass(frozen=True)
class Refined:
    """Refined poses of N images, and what was found about the given ones."""

    T_map_camera_N44: Array
    residual_px: float
    """Median distance of verified matches from the epipolar lines of the given poses, pixels."""
    sigma_m: float
    """Estimated standard deviation of the given positions along each axis."""
    sigma_rad: float
    """The same for the rotations."""
    moved_m: Array
    moved_rad: Array

    def summary(self) -> dict[str, Any]:
        """Fields of the manifest's `PoseRefinement`."""
        degrees = np.degrees(self.moved_rad)
        return {
            "residual_px": self.residual_px,
            "sigma_m": self.sigma_m,
            "sigma_deg": float(np.degrees(self.sigma_rad)),
            "moved_median_m": float(np.median(self.moved_m)),
            "moved_p95_m": float(np.percentile(self.moved_m, 95)),
            "moved_median_deg": float(np.median(degrees)),
            "moved_p95_deg": float(np.percentile(degrees, 95)),
        }

    def describe(self) -> str:
        """One line for a log."""
        found = self.summary()
        return (
            f"matches are {self.residual_px:.1f} pixels off the given poses, which are off by about "
            f"{length_text(self.sigma_m)} and {angle_text(found['sigma_deg'])} along and about each axis: "
            f"refined; moved by median {length_text(found['moved_median_m'])} and "
            f"{angle_text(found['moved_median_deg'])}, 95 % within {length_text(found['moved_p95_m'])} and "
            f"{angle_text(found['moved_p95_deg'])}"
        )


def refine_poses(
    images: Sequence[MapImage],
    T_map_camera_N44: Array,
    K: Array,
    size_wh: tuple[int, int],
    refine: Refine,
    progress: Progress,
) -> Refined | None:
    """The refined poses, in the frame of the given ones. None where these are kept.

    images, T_map_camera_N44: local features and given poses of N images; K, size_wh: intrinsic matrix and size of
    the local features' image; refine: "auto" refines if the poses are worse than the features.
    """
    if refine == "off":
        return None
    pairs = neighbour_pairs(T_map_camera_N44)
    if refine == "auto" and _good_enough(images, T_map_camera_N44, K, pairs):
        return None
    advance = progress.start("two-view geometry", len(pairs))
    proposed, views = [], []
    T_camera_map = invert(T_map_camera_N44)
    for (i, j), found in zip(pairs, proposed_matches(images, pairs), strict=True):
        T_first_second = T_camera_map[i] @ T_map_camera_N44[j]
        proposed.append(found)
        views.append(verify(images[i], images[j], found, T_first_second, K))
        advance(1)
    good = [view for view in views if view is not None]
    if len(good) < FEWEST_PAIRS:
        logger.warning(
            "the poses are not refined: the matches of only %d of %d image pairs can be verified "
            "without them",
            *(len(good), len(pairs)),
        )
        return None
    adjuster = _Adjuster(images, T_map_camera_N44, K, size_wh, pairs, proposed)
    residual_px = _median(good, "residual_px")
    sigma_m = max(_median(good, "aside_m") / (1.177 * np.sqrt(2.0)), SMALLEST_SIGMA_M)
    sigma_rad = max(_median(good, "turn_rad") / (MEDIAN_NORM * np.sqrt(2.0)), SMALLEST_SIGMA_RAD)
    wide = max(LIMIT_PX, 3.0 * residual_px)
    limits = [wide, max(LIMIT_PX, 0.3 * wide), LIMIT_PX, LIMIT_PX]
    advance = progress.start("bundle adjustment", len(limits))
    table = adjuster.tracks([None if view is None else view.inlier_M for view in views])
    T = T_map_camera_N44
    for number, limit_px in enumerate(limits):
        if number == len(limits) - 1:
            table = adjuster.tracks(adjuster.near_lines(T))
        T = adjuster.adjusted(T, table, limit_px, sigma_m, sigma_rad)
        moved_m, moved_rad = pose_errors(T, T_map_camera_N44)
        sigma_m = max(float(np.median(moved_m)) / MEDIAN_NORM, SMALLEST_SIGMA_M)
        sigma_rad = max(float(np.median(moved_rad)) / MEDIAN_NORM, SMALLEST_SIGMA_RAD)
        logger.debug("limit %.1f pixels: sigma %.3f m, %.4f rad", limit_px, sigma_m, sigma_rad)
        advance(1)
    refined = Refined(T, residual_px, sigma_m, sigma_rad, moved_m, moved_rad)
    logger.info(refined.describe())
    return refined


def _good_enough(
    images: Sequence[MapImage], T_map_camera_N44: Array, K: Array, pairs_P2: NDArray[np.int64]
) -> bool:
    """Whether the given poses fit the images as well as the features do, decided on some pairs."""
    chosen = pairs_P2[:: max(1, len(pairs_P2) // SAMPLE)]
    T_camera_map = invert(T_map_camera_N44)
    views = [
        verify(images[i], images[j], found, T_camera_map[i] @ T_map_camera_N44[j], K)
        for (i, j), found in zip(chosen, proposed_matches(images, chosen), strict=True)
    ]
    good = [view for view in views if view is not None]
    if len(good) < FEWEST_PAIRS:
        logger.info(
            "the matches of only %d of %d image pairs can be verified without poses: the given poses are kept",
            *(len(good), len(chosen)),
        )
        return True
    residual_px, limit_px = _median(good, "residual_px"), LARGEST_RATIO * _median(good, "own_px")
    if residual_px > limit_px:
        return False
    logger.info(
        "matches are %.1f pixels off the given poses (refined above %.1f): these are kept",
        *(residual_px, limit_px),
    )
    return True


def _median(views: Sequence[TwoView], name: str) -> float:
    return float(np.median([getattr(view, name) for view in views]))


class _Adjuster:
    """The images, their pairs and proposed matches, and the given poses as priors."""

    def __init__(
        self,
        images: Sequence[MapImage],
        T_given_N44: Array,
        K: Array,
        size_wh: tuple[int, int],
        pairs_P2: NDArray[np.int64],
        proposed: Sequence[Matches],
    ) -> None:
        self._images, self._T_given, self._K, self._size_wh = images, T_given_N44, K, size_wh
        self._pairs, self._proposed = pairs_P2, proposed
        counts = [len(image.pixel_N2) for image in images]
        self._offset = np.cumsum([0, *counts])
        self._image_of = np.repeat(np.arange(len(images)), counts)
        self._pixel_N2 = np.concatenate([image.pixel_N2 for image in images]).astype(np.float64)

    def near_lines(self, T_map_camera_N44: Array) -> list[NDArray[np.bool_]]:
        """Which matches of each pair are near the epipolar lines of the poses."""
        T_camera_map = invert(T_map_camera_N44)
        near = []
        for (i, j), found in zip(self._pairs, self._proposed, strict=True):
            a = self._pixel_N2[self._offset[i] + found.first_M]
            b = self._pixel_N2[self._offset[j] + found.second_M]
            T_first_second = T_camera_map[i] @ T_map_camera_N44[j]
            near.append(epipolar_distances(a, b, T_first_second, self._K) < EPIPOLAR_PX)
        return near

    def tracks(self, chosen: Sequence[NDArray[np.bool_] | None]) -> NDArray[np.int64]:
        """The longest tracks ``(P, L)`` of the chosen matches of each pair, some for each image."""
        parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = [
            (self._offset[i] + m.first_M[c], self._offset[j] + m.second_M[c], m.similarity_M[c])
            for (i, j), m, c in zip(self._pairs, self._proposed, chosen, strict=True)
            if c is not None
        ]
        first, second, similarity = (np.concatenate(column) for column in zip(*parts, strict=True))
        found = join_matches(first, second, similarity, self._image_of, FEWEST_IMAGES)
        return self._longest(found.keypoint_PL, found.valid_PL, 2 * POINTS_PER_IMAGE)

    def _longest(
        self, table_PL: NDArray[np.int64], good_PL: NDArray[np.bool_], per_image: int
    ) -> NDArray[np.int64]:
        """The tracks, without observations that are not good, of which each image sees some."""
        table = np.where(good_PL, table_PL, -1)[good_PL.sum(axis=1) >= FEWEST_IMAGES]
        track, place = np.nonzero(table >= 0)
        keypoint = table[track, place]
        order = np.argsort(self._image_of[keypoint], kind="stable")
        keypoint, track = keypoint[order], track[order]
        image, length = self._image_of[keypoint], (table >= 0).sum(axis=1).astype(np.float64)
        pixel = self._pixel_N2[keypoint]
        kept = best_points(image, track, pixel, length, self._size_wh, per_image)
        return table[kept]

    def adjusted(
        self,
        T_map_camera_N44: Array,
        table_PL: NDArray[np.int64],
        limit_px: float,
        sigma_m: float,
        sigma_rad: float,
    ) -> Array:
        """The adjusted poses. limit_px: observations with larger errors before the adjustment are left out."""
        position, residual = points_of_tracks(
            *(table_PL, self._image_of, self._pixel_N2, T_map_camera_N44, self._K, limit_px),
            lambda tracks: None,
        )
        good = residual <= limit_px
        usable = good.sum(axis=1) >= FEWEST_IMAGES
        position, good, table = position[usable], good[usable], table_PL[usable]
        point, place = np.nonzero(good)
        keypoint = table[point, place]
        seen = Observations(self._image_of[keypoint], point, self._pixel_N2[keypoint])
        priors = Priors(self._T_given, sigma_m, sigma_rad)
        scale_px = limit_px / 3.0
        return adjust(T_map_camera_N44, position, seen, priors, self._K, scale_px, STEPS)[0]
