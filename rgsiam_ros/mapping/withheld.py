"""Which map images a held-out image may not use, so that it stands for another drive or for an unmapped place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle.map_points import MapPoints
from rgsiam_ros.geometry.poses import Array, rotation_angle

PASS_SHARE = 2.0
"""A pass goes on as long as the camera is this near, as a multiple of the points' distance."""
SEEN_SHARE, SEEN_TURN = 0.15, np.radians(15.0)
"""Map images show the same view if they are this near, as a share of the points' distance, and look that way."""
GAP_SHARE = 0.1
"""Another drive passes this far from the mapped one, as a share of the points' distance. Nearer images of the same
pass know more than a map does: a hand-held camera takes dozens of them, with the same labels' errors."""
FEW = 4
"""So few map images are what another drive finds in the map."""
NEAR = 4
"""So many map images show a place."""


def other_passes(
    index: int,
    T_camera: Array,
    mapped_I: NDArray[np.int64],
    T_mapped_I44: Array,
    session_of: NDArray[np.int64],
    distance_m: float,
) -> NDArray[np.int64]:
    """Indices of the map images that stand for another drive than that of a held-out frame.

    If other passes show the same view, all map images of the frame's own pass are left out: they share the errors of
    its labels. Otherwise only the nearest are, if there are many. index, T_camera: of the frame, in the drive, and its
    pose ``(4, 4)``, metres; mapped_I, T_mapped_I44: frames, rising, and poses of the I map images; session_of:
    session of every frame; distance_m: typical distance of the points.
    """
    apart = np.linalg.norm(T_mapped_I44[:, :3, 3] - T_camera[:3, 3], axis=1)
    turned = rotation_angle(T_camera[:3, :3].T @ T_mapped_I44[:, :3, :3])
    own = session_of[mapped_I] == session_of[index]
    middle = int(np.searchsorted(mapped_I, index))
    others = ~_run(middle, own & (apart < PASS_SHARE * distance_m))
    same_view = (apart < SEEN_SHARE * distance_m) & (turned < SEEN_TURN)
    if (others & same_view).sum() >= FEW:
        return np.flatnonzero(others)
    near = _run(middle, own & (apart < GAP_SHARE * distance_m))
    return np.flatnonzero(~near) if near.sum() > FEW else np.arange(len(mapped_I))


def _run(middle: int, marked_I: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The marked entries before and from `middle` on, up to the first that is not."""
    after = int(np.argmin(np.append(marked_I[middle:], False)))
    before = int(np.argmin(np.append(marked_I[:middle][::-1], False)))
    found = np.zeros(len(marked_I), bool)
    found[middle - before : middle + after] = True
    return found


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
