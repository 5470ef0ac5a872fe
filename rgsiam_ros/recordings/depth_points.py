"""Compute 3D scene points from depth images."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.geometry.poses import Array

FARTHEST_M = 200.0
MOST_POINTS = 2000
"""Approximate number of points of one image. A larger depth image is sampled on a regular grid."""


def points_of_depth(depth_m_HW: ArrayLike, camera: Camera, T_map_camera: Array) -> Array:
    """Return scene points ``(M, 3)`` in the map frame, metres, of a depth image registered to the camera.

    depth_m_HW: depth along the optical axis, metres. It shows the same view as the camera but may have
    another resolution. Values that are not positive, not finite, or larger than 200 m count as missing.
    """
    depth = np.asarray(depth_m_HW, np.float64)
    height, width = depth.shape
    step = max(1, round(np.sqrt(height * width / MOST_POINTS)))
    rows, columns = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    z = depth[rows, columns].ravel()
    pixels = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    pixels = pixels * [camera.width / width, camera.height / height] - 0.5
    valid = np.isfinite(z) & (z > 0.0) & (z <= FARTHEST_M)
    rays = (pixels[valid] - [camera.cx, camera.cy]) / [camera.fx, camera.fy]
    if camera.distortion_model != "none" and len(rays):
        lens_model = cv2.fisheye if camera.distortion_model == "equidistant" else cv2
        distortion = np.asarray(camera.distortion)
        rays = lens_model.undistortPoints(rays[:, None], np.eye(3), distortion)[:, 0]
    points_camera = np.concatenate([rays, np.ones((len(rays), 1))], axis=1) * z[valid, None]
    return points_camera @ T_map_camera[:3, :3].T + T_map_camera[:3, 3]
