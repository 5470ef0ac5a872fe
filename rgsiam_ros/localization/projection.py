"""Where a camera sees the map's points, and which keypoints are near them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from rgsiam_ros.geometry.poses import Array

SMALLEST_DEPTH = 1e-6


def projected_pixels(
    T_map_camera: Array, position_P3: Array, K: Array
) -> tuple[Array, NDArray[np.bool_]]:
    """Where a camera with the intrinsic matrix K sees points: pixels ``(P, 2)``, and which lie in front of it.

    T_map_camera: ``(4, 4)``; position_P3: in the same frame, metres. Pixels of points behind the camera are 0.
    """
    inside = (position_P3 - T_map_camera[:3, 3]) @ T_map_camera[:3, :3]
    depth = inside[:, 2]
    front = depth > SMALLEST_DEPTH
    return (inside @ K.T)[:, :2] / np.where(front, depth, np.inf)[:, None], front


def near_pairs(
    T_map_camera: Array,
    position_P3: Array,
    pixel_N2: NDArray[np.float32],
    K: Array,
    most_px: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pairs of a keypoint and a point that projects within most_px of it: indices of both.

    T_map_camera, position_P3, K: see `projected_pixels`; pixel_N2: the keypoints.
    """
    projected, front = projected_pixels(T_map_camera, position_P3, K)
    low, high = pixel_N2.min(axis=0) - most_px, pixel_N2.max(axis=0) + most_px
    near = front & ((projected > low) & (projected < high)).all(axis=1)
    index = np.flatnonzero(near)
    if not len(index):
        return index, index
    # Unbalanced trees are made faster than they save.
    trees = [
        cKDTree(x, compact_nodes=False, balanced_tree=False) for x in (pixel_N2, projected[index])
    ]
    pairs = trees[0].sparse_distance_matrix(trees[1], most_px, output_type="ndarray")
    return pairs["i"], index[pairs["j"]]
