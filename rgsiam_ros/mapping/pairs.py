"""Choose which map images are matched with each other, by their known poses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from rgsiam_ros.geometry.poses import Array, skew

RANKS = (0, 1, 2, 3, 5, 7, 10, 14, 19, 26, 35, 47)
"""Each image is matched with its neighbours of these ranks by distance: near ones, which look alike, and
farther ones, which give parallax."""
CANDIDATES = 200
"""Number of the nearest images among which neighbours are looked for."""
LARGEST_ANGLE = np.radians(50.0)
"""Two images whose viewing directions differ by more are not matched."""


def neighbour_pairs(T_map_camera_N44: Array) -> NDArray[np.int64]:
    """Pairs of indices ``(P, 2)``, the smaller one first, each pair once."""
    position = T_map_camera_N44[:, :3, 3]
    view = T_map_camera_N44[:, :3, 2]
    count = min(len(position), CANDIDATES + 1)
    _, nearest = cKDTree(position).query(position, k=count)
    pairs: set[tuple[int, int]] = set()
    for i, candidates in enumerate(nearest.reshape(len(position), count)):
        similar = view[candidates] @ view[i] > np.cos(LARGEST_ANGLE)
        kept = candidates[similar & (candidates != i)]
        for rank in RANKS:
            if rank < len(kept):
                j = int(kept[rank])
                pairs.add((min(i, j), max(i, j)))
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def epipolar_distances(first_M2: Array, second_M2: Array, T_first_second: Array, K: Array) -> Array:
    """How far each match is from its epipolar line, pixels, the larger of both images, ``(M,)``.

    first_M2, second_M2: pixels of a pinhole camera with the intrinsic matrix K; T_first_second: relative
    pose.
    """
    K_inverse = np.linalg.inv(K)
    E = skew(T_first_second[:3, 3]) @ T_first_second[:3, :3]
    F = K_inverse.T @ E @ K_inverse
    ones = np.ones((len(first_M2), 1))
    a, b = np.hstack([first_M2, ones]), np.hstack([second_M2, ones])
    line_a, line_b = b @ F.T, a @ F
    value = np.abs((a * line_a).sum(axis=1))
    smaller = np.minimum(np.hypot(*line_a[:, :2].T), np.hypot(*line_b[:, :2].T))
    return value / np.maximum(smaller, 1e-12)
