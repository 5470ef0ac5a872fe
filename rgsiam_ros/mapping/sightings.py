"""Which points of a map the images of a new drive see again, and which they should see but do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle.map_points import MapPoints
from rgsiam_ros.features.keypoints import Keypoints
from rgsiam_ros.features.matching import mutual_pairs
from rgsiam_ros.geometry.poses import Array, rotation_angle
from rgsiam_ros.localization.geometric import GUIDED_SIMILARITY, near_pairs, projected_pixels
from rgsiam_ros.mapping.progress import Progress
from rgsiam_ros.mapping.withheld import SEEN_SHARE, SEEN_TURN

NEAR_IMAGES = 12
"""Points that so many map images near an image see are looked for in it."""
WITNESS_SHARE = 0.5
"""An image that sees a smaller share of the points that it should see, in other light for example, is no witness."""
WITNESSES = 8
"""A point that no image sees, though so many witnesses should, is removed."""


@dataclass(frozen=True)
class Sightings:
    """V sightings of the P points of a map by the N images of a drive."""

    image_V: NDArray[np.int64]
    """Rising."""
    keypoint_V: NDArray[np.int64]
    """Index of the keypoint in its image."""
    point_V: NDArray[np.int64]
    gone_P: NDArray[np.bool_]
    """Points that enough witnesses should see, and that no image sees."""
    gone_N: NDArray[np.int64]
    """Number of them that each image should see."""
    share_N: Array
    """Share that each image sees of the points that it should see; NaN if there is none."""

    @property
    def seen_P(self) -> NDArray[np.bool_]:
        """Points that some image sees."""
        return np.bincount(self.point_V, minlength=len(self.gone_P)) > 0


def look_for_points(
    points: MapPoints,
    T_points_camera_N44: Array,
    keypoints: Sequence[Keypoints],
    trusted_N: NDArray[np.bool_],
    K: Array,
    size_wh: tuple[int, int],
    distance_m: float,
    progress: Progress,
) -> Sightings:
    """Look for the points in the images that have a pose.

    An image should see the points that map images see whose view is nearly the same: within 0.15 of the points' distance
    and 15 degrees. T_points_camera_N44: poses, NaN for an image without one; trusted_N: images that the map found, which
    alone are witnesses; K, size_wh: of the local features' image; distance_m: typical distance of the points.
    """
    advance = progress.start("points seen again", len(keypoints))
    N, P = len(keypoints), len(points.position_P3)
    seen: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    present_P = np.zeros(P, bool)
    missed: list[NDArray[np.int64]] = []
    share_N = np.full(N, np.nan)
    none = np.empty(0, np.int64)
    for i, T in enumerate(T_points_camera_N44):
        found, there, expected = (none, none), none, none
        if np.isfinite(T).all():
            found, there = _matched(points, T, keypoints[i], K)
            expected = _expected(points, T, K, size_wh, distance_m)
        unseen = np.setdiff1d(expected, there)
        if len(expected):
            share_N[i] = 1.0 - len(unseen) / len(expected)
        seen.append(found)
        present_P[there] = True
        missed.append(unseen if trusted_N[i] and share_N[i] >= WITNESS_SHARE else none)
        advance(1)
    image_V = np.repeat(np.arange(N), [len(point) for _, point in seen])
    keypoint_V, point_V = (np.concatenate([none, *parts]) for parts in zip(*seen, strict=True))
    missed_P = np.bincount(np.concatenate([none, *missed]), minlength=P)
    gone_P = (missed_P >= WITNESSES) & ~present_P
    gone_N = np.array([int(gone_P[part].sum()) for part in missed], np.int64)
    return Sightings(image_V, keypoint_V, point_V, gone_P, gone_N, share_N)


def _matched(
    points: MapPoints, T: Array, keypoints: Keypoints, K: Array
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]:
    """Keypoints and points that match near where the pose expects them, and all points that some keypoint resembles."""
    index = points.seen_by(points.nearest(T, NEAR_IMAGES))
    first, second = near_pairs(T, points.position_P3[index], keypoints.pixel_N2, K)
    live = keypoints.descriptor_ND[first].astype(np.float32)
    similarity = np.einsum("ij,ij->i", live, points.unit_descriptor_PD[index[second]])
    found = mutual_pairs(first, second, similarity, GUIDED_SIMILARITY)
    there = index[np.unique(second[similarity >= GUIDED_SIMILARITY])]
    return (found.first_M, index[found.second_M]), there


def _expected(
    points: MapPoints, T: Array, K: Array, size_wh: tuple[int, int], distance_m: float
) -> NDArray[np.int64]:
    """Points that an image should see, rising."""
    camera_N44 = points.T_points_camera_N44
    apart = np.linalg.norm(camera_N44[:, :3, 3] - T[:3, 3], axis=1)
    near = np.flatnonzero(apart < SEEN_SHARE * distance_m)
    near = near[rotation_angle(T[:3, :3].T @ camera_N44[near, :3, :3]) < SEEN_TURN]
    index = points.seen_by(near)
    pixel, front = projected_pixels(T, points.position_P3[index], K)
    return index[front & ((pixel >= 0.0) & (pixel < np.array(size_wh))).all(axis=1)]
