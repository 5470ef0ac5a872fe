"""How far test poses are from the training poses."""

from __future__ import annotations

from typing import Any

import numpy as np

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.geometry.poses import Array, angles_between
from rgsiam_ros.geometry.summaries import summarise


def cover(
    T_train_N44: Array, T_test_M44: Array, scale_m: float, half_view_deg: float
) -> dict[str, Any]:
    """Distances from each test pose to the nearest training pose, by position and rotation together.

    A move by `scale_m` and a turn by `half_view_deg` each take half of the points out of the view, so they count the
    same: the distance is the sum of the move and the turn in these units. The result holds the median, the 95th
    percentile and the maximum of the distances to the nearest pose in metres and degrees (``median_m`` to
    ``max_deg``), ``poses``, the number of test poses, ``uncovered``, the number of those whose nearest training pose
    is farther than 1 in these units, and the units.
    """
    metres, degrees = np.empty(len(T_test_M44)), np.empty(len(T_test_M44))
    for m, T in enumerate(T_test_M44):
        distance_m = np.linalg.norm(T_train_N44[:, :3, 3] - T[:3, 3], axis=1)
        angle_deg = np.degrees(angles_between(T_train_N44[:, :3, :3], T[:3, :3]))
        nearest = (distance_m / scale_m + angle_deg / half_view_deg).argmin()
        metres[m], degrees[m] = distance_m[nearest], angle_deg[nearest]
    result: dict[str, Any] = {
        "poses": len(T_test_M44),
        "uncovered": int((metres / scale_m + degrees / half_view_deg > 1.0).sum()),
        "scale_m": scale_m,
        "half_view_deg": half_view_deg,
    }
    for unit, values in (("m", metres), ("deg", degrees)):
        result |= summarise(values, ("median", "p95", "max"), f"_{unit}")
    return result


def half_view_deg(camera: Camera) -> float:
    """Angle from the middle of the view to its left or right edge."""
    half = 0.5 * camera.width / camera.fx
    return float(np.degrees(half if camera.distortion_model == "equidistant" else np.arctan(half)))
