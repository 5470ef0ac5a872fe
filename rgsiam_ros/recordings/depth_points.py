"""Scene points from depth images."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.geometry.poses import Array

FARTHEST_M = 200.0
MOST_POINTS = 2000
"""Of one image; a depth image is thinned to this on a grid."""


def points_of_depth(depth_m_HW: ArrayLike, camera: Camera, T_map_camera: Array) -> Array:
    """Points ``(M, 3)`` in the map, metres, of a depth image registered to the camera.

    depth_m_HW: along the optical axis, metres, of any resolution but the camera's view; not positive,
    not finite or beyond 200 m: no depth there.
    """
    depth = np.asarray(depth_m_HW, np.float64)
    height, width = depth.shape
    step = max(1, round(np.sqrt(height * width / MOST_POINTS)))
    rows, columns = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    z = depth[rows, columns].ravel()
    pixels = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    pixels = pixels * [camera.width / width, camera.height / height] - 0.5
    known = np.isfinite(z) & (z > 0.0) & (z <= FARTHEST_M)
    rays = (pixels[known] - [camera.cx, camera.cy]) / [camera.fx, camera.fy]
    if camera.distortion_model != "none" and len(rays):
        undo = cv2.fisheye if camera.distortion_model == "equidistant" else cv2
        distortion = np.asarray(camera.distortion)
        rays = undo.undistortPoints(rays[:, None], np.eye(3), distortion)[:, 0]
    in_camera = np.concatenate([rays, np.ones((len(rays), 1))], axis=1) * z[known, None]
    return in_camera @ T_map_camera[:3, :3].T + T_map_camera[:3, 3]
