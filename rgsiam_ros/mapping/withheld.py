"""Which map images a held-out image may not use, so that it stands for another drive or for an unmapped place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle.map_points import MapPoints
from rgsiam_ros.geometry.poses import Array

GAP_SHARE = 0.1
"""Another drive passes this far from the mapped one, as a share of the points' distance. Nearer images of the same
pass know more than a map does: a hand-held camera takes dozens of them, with the same labels' errors."""
FEW = 4
"""So few of them are no more than what another drive finds in the map, and are not left out."""
NEAR = 4
"""So many map images show a place."""


def other_passes(
    index: int,
    position_3: Array,
    mapped_I: NDArray[np.int64],
    mapped_position_I3: Array,
    session_of: NDArray[np.int64],
    gap_m: float,
) -> NDArray[np.int64]:
    """Indices of the map images without those of the same pass that are nearer than a gap, if there are many.

    index, position_3: of a held-out frame, in the drive and in the map, metres; mapped_I: frames of the I map images,
    rising; mapped_position_I3: their positions; session_of: session of every frame.
    """
    near_I = np.linalg.norm(mapped_position_I3 - position_3, axis=1) < gap_m
    near_I &= session_of[mapped_I] == session_of[index]
    middle = int(np.searchsorted(mapped_I, index))
    after = int(np.argmin(np.append(near_I[middle:], False)))
    before = int(np.argmin(np.append(near_I[:middle][::-1], False)))
    kept = np.ones(len(mapped_I), bool)
    if before + after > FEW:
        kept[middle - before : middle + after] = False
    return np.flatnonzero(kept)


def other_places(T_points_camera: Array, points: MapPoints) -> NDArray[np.int64]:
    """Indices of the map images that would be left if nobody had driven through the place of a camera.

    T_points_camera: ``(4, 4)`` its pose in the points' frame. The images nearest to it, those that share points with
    them, and those that share points with these are left out: the middle of an unmapped stretch, not its edge, from
    where the map can still be seen.
    """
    images = points.nearest(T_points_camera, NEAR)
    for _ in range(2):
        seen = np.zeros(len(points.position_P3), bool)
        seen[points.seen_by(images)] = True
        images = np.flatnonzero([seen[visible].any() for visible in points.visible])
    return np.setdiff1d(np.arange(len(points.visible)), images)
