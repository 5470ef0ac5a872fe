"""Choice of the map images among the training images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.geometry.poses import Array, angles_between


def thin(T_map_camera_N44: Array, spacing_m: float, spacing_deg: float) -> NDArray[np.int64]:
    """Return the ascending indices of images of which no two are closer than the spacing.

    Images are visited in order. An image is dropped when its distance to a kept one satisfies
    ``metres / spacing_m + degrees / spacing_deg < 1``. With `spacing_m` 0 all images are kept.
    """
    if spacing_m == 0.0:
        return np.arange(len(T_map_camera_N44))
    t = T_map_camera_N44[:, :3, 3]
    R = T_map_camera_N44[:, :3, :3]
    kept: list[int] = []
    for own in range(len(t)):
        metres = np.linalg.norm(t[kept] - t[own], axis=1)
        degrees = np.degrees(angles_between(R[kept], R[own]))
        if not (metres / spacing_m + degrees / spacing_deg < 1.0).any():
            kept.append(own)
    return np.asarray(kept)
