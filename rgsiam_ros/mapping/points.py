"""Make the points of a map from the local features and the known poses of its images.

1. Each image is matched with its neighbours (`pairs`, `matching`).
2. Matches are joined to tracks (`tracks`).
3. Each track is triangulated with the known poses (`triangulation`).
4. The best points of each image are kept (`selection`), each with the mean of its descriptors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.features.keypoints import COARSE_STEPS, DESCRIPTOR_SIZE, from_bytes, to_bytes
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.mapping.matching import MapImage, match_pairs
from rgsiam_ros.mapping.pairs import neighbour_pairs
from rgsiam_ros.mapping.progress import Advance, Progress
from rgsiam_ros.mapping.selection import best_points
from rgsiam_ros.mapping.tracks import join_matches
from rgsiam_ros.mapping.triangulation import triangulate

LIMIT_PX = 3.0
"""Largest reprojection error of an observation, pixels of the local features' image."""
SMALLEST_PARALLAX = np.radians(1.0)
CHUNK = 20_000
"""Number of tracks that are triangulated at once."""


@dataclass(frozen=True)
class PointCloud:
    """P points and their V observations, sorted by image."""

    position_P3: Array
    """Metres in the map frame."""
    descriptor_PD: NDArray[np.int8]
    image_V: NDArray[np.int64]
    """The map image of each observation, not falling."""
    point_V: NDArray[np.int64]
    """The point of each observation."""
    keypoint_V: NDArray[np.int64]
    """Its keypoint, counted over the keypoints of all images."""
    pixel_V2: Array
    """Pixels of the local features' image."""
    residual_V: Array
    """Reprojection errors, pixels."""
    tracks: int
    """Number of tracks, of which some gave no point."""
    pairs: int
    """Number of image pairs that were matched."""

    def visible(self, images: int) -> tuple[NDArray[np.int64], ...]:
        """For each of the images the indices of the points that it sees, rising."""
        edges = np.searchsorted(self.image_V, np.arange(1, images))
        return tuple(np.unique(points) for points in np.split(self.point_V, edges))


def make_points(
    images: Sequence[MapImage],
    T_map_camera_N44: Array,
    K: Array,
    size_wh: tuple[int, int],
    per_image: int,
    progress: Progress,
) -> PointCloud:
    """The points of a map.

    K, size_wh: intrinsic matrix and size of the local features' image; per_image: number of points that the
    map keeps for each image.
    """
    pairs = neighbour_pairs(T_map_camera_N44)
    advance = progress.start("matching", len(pairs))
    matches = match_pairs(images, T_map_camera_N44, pairs, K, advance)
    image_of = np.repeat(np.arange(len(images)), [len(image.pixel_N2) for image in images])
    table = join_matches(
        matches.first_M, matches.second_M, matches.similarity_M, image_of
    ).keypoint_PL
    pixel_N2 = np.concatenate([image.pixel_N2 for image in images]).astype(np.float64)
    descriptor_ND = np.concatenate([image.descriptor_ND for image in images])
    advance = progress.start("triangulation", len(table))
    position, residual = points_of_tracks(
        table, image_of, pixel_N2, T_map_camera_N44, K, LIMIT_PX, advance
    )
    good = residual <= LIMIT_PX
    usable = good.sum(axis=1) >= 2
    position, residual, good, table_kept = (
        position[usable],
        residual[usable],
        good[usable],
        table[usable],
    )
    point, place = np.nonzero(good)
    keypoint = table_kept[point, place]
    order = np.argsort(image_of[keypoint], kind="stable")
    point, keypoint, error = point[order], keypoint[order], residual[point, place][order]
    count = np.bincount(point, minlength=len(position))
    squares = np.bincount(point, error**2, minlength=len(position))
    score = count - 0.1 * np.sqrt(squares / np.maximum(count, 1))
    kept = best_points(image_of[keypoint], point, pixel_N2[keypoint], score, size_wh, per_image)
    number = np.cumsum(kept) - 1
    seen = kept[point]
    keypoint, point, error = keypoint[seen], number[point[seen]], error[seen]
    return PointCloud(
        position[kept],
        to_bytes(_mean_descriptors(descriptor_ND[keypoint], point, int(kept.sum())), COARSE_STEPS),
        image_of[keypoint],
        point,
        keypoint,
        pixel_N2[keypoint],
        error,
        len(table),
        len(pairs),
    )


def points_of_tracks(
    table_PL: NDArray[np.int64],
    image_of_N: NDArray[np.int64],
    pixel_N2: Array,
    T_map_camera_N44: Array,
    K: Array,
    limit_px: float,
    advance: Advance,
) -> tuple[Array, Array]:
    """Positions ``(P, 3)`` and reprojection errors ``(P, L)``; infinite where a track gives no point.

    table_PL: keypoints of each track, see `Tracks`; image_of_N, pixel_N2: of all keypoints; limit_px: see
    `triangulate`; advance: is called with the number of tracks done since the last call.
    """
    R_camera_map = np.swapaxes(T_map_camera_N44[:, :3, :3], 1, 2)
    positions, residuals = [np.empty((0, 3))], [np.empty((0, table_PL.shape[1]))]
    for start in range(0, len(table_PL), CHUNK):
        table = table_PL[start : start + CHUNK]
        valid = table >= 0
        keypoint = np.where(valid, table, 0)
        image = image_of_N[keypoint]
        origin, pixel = T_map_camera_N44[image, :3, 3], pixel_N2[keypoint]
        found = triangulate(origin, R_camera_map[image], pixel, valid, K, limit_px)
        flat = found.parallax_P < SMALLEST_PARALLAX
        positions.append(found.position_P3)
        residuals.append(np.where(flat[:, None], np.inf, found.residual_PL))
        advance(len(table))
    return np.concatenate(positions), np.concatenate(residuals)


def _mean_descriptors(
    descriptor_VD: NDArray[np.int8], point_V: NDArray[np.int64], points: int
) -> NDArray[np.float32]:
    sums = np.zeros((points, DESCRIPTOR_SIZE), np.float32)
    order = np.argsort(point_V, kind="stable")
    if len(order):
        first = np.searchsorted(point_V[order], np.arange(points))
        sums = np.add.reduceat(from_bytes(descriptor_VD[order]), first, axis=0)
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
