"""The matches of one image with the map, for whoever wants to look at them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle.map_points import MapPoints
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.geometric import GeometricPose, projected_pixels


@dataclass(frozen=True)
class Pairs:
    """M keypoints and the map points that they were matched with."""

    pixel_M2: Array
    """The keypoints, pixels of the network's image."""
    expected_M2: Array
    """Where the pose expects the points in that image, pixels; NaN behind the camera."""
    point_M3: Array
    """The points in the map frame, metres."""


@dataclass(frozen=True)
class Matches:
    """References to what a pose was computed from. Nothing is computed before it is asked for."""

    points: MapPoints
    T_map_points: Array
    """``(4, 4)`` pose of the points' frame in the map frame."""
    K: Array
    """Intrinsic matrix of the network's image."""
    pixel_N2: NDArray[np.float32]
    """All keypoints of the image, the strongest first."""
    found: GeometricPose | None
    """None if no pose was found, and so no match is known."""

    def inliers(self) -> Pairs:
        """The matches that agree with the pose."""
        found = self.found
        if found is None:
            return self._pairs(*_nothing())
        return self._pairs(found.keypoint_M[found.inlier_M], found.point_M[found.inlier_M])

    def outliers(self) -> Pairs:
        """The matches of the search whose keypoints are not among the inliers."""
        found = self.found
        if found is None:
            return self._pairs(*_nothing())
        wrong = ~np.isin(found.searched_keypoint_S, found.keypoint_M[found.inlier_M])
        return self._pairs(found.searched_keypoint_S[wrong], found.searched_point_S[wrong])

    def _pairs(self, keypoint_M: NDArray[np.int64], point_M: NDArray[np.int64]) -> Pairs:
        T = self.T_map_points
        point_M3 = self.points.position_P3[point_M] @ T[:3, :3].T + T[:3, 3]
        expected_M2 = np.full((len(point_M), 2), np.nan)
        if self.found is not None:
            pixel_M2, seen = projected_pixels(self.found.T_map_camera, point_M3, self.K)
            expected_M2[seen] = pixel_M2[seen]
        return Pairs(self.pixel_N2[keypoint_M].astype(np.float64), expected_M2, point_M3)


def _nothing() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.empty(0, np.int64), np.empty(0, np.int64)
