"""Geometry of the network's input image: the rays of its pixels, and which images have overlapping views."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import Preprocessing, centred_crop
from rgsiam_ros.geometry.poses import Array, invert

PROBES = (6, 4)
"""Columns and rows of the grid of rays that measures the overlap. The rays are at the centres of its
cells."""
PROBE_DEPTHS = (1.0, 4.0)
"""Depths of the points on these rays, in units of the reach."""
MOST_PARTNERS = 64
"""Largest number of overlapping images that are kept for one image."""
BORDER_PROBES = 9
"""Columns and rows of the grid of pixels that measures the bounds of the view."""


def input_intrinsics(camera: Camera, preprocessing: Preprocessing) -> Array:
    """Return the intrinsic matrix ``(3, 3)`` of the network's input, pixels. It ignores lens distortion."""
    x, y, w, h = 0, 0, camera.width, camera.height
    if preprocessing.aspect == "crop":
        aspect = preprocessing.input_width / preprocessing.input_height
        x, y, w, h = centred_crop(camera.width, camera.height, aspect)
    scale_x, scale_y = preprocessing.input_width / w, preprocessing.input_height / h
    return np.array(
        [
            [camera.fx * scale_x, 0.0, (camera.cx - x + 0.5) * scale_x - 0.5],
            [0.0, camera.fy * scale_y, (camera.cy - y + 0.5) * scale_y - 0.5],
            [0.0, 0.0, 1.0],
        ]
    )


def pixel_rays(pixel_N2: ArrayLike, camera: Camera, preprocessing: Preprocessing) -> Array:
    """Return the normalised image coordinates ``(x/z, y/z)`` ``(N, 2)`` of input pixels, without distortion.

    pixel_N2: column and row in the network's input. Pixel centres are at whole numbers.
    """
    K = input_intrinsics(camera, preprocessing)
    ray_N2 = (np.asarray(pixel_N2, np.float64) - K[:2, 2]) / np.diag(K)[:2]
    if preprocessing.undistort or camera.distortion_model == "none":
        return ray_N2
    distortion = np.asarray(camera.distortion)
    undo = cv2.fisheye if camera.distortion_model == "equidistant" else cv2
    return undo.undistortPoints(ray_N2[:, None], np.eye(3), distortion)[:, 0]


def project(ray_N3: Array, camera: Camera, preprocessing: Preprocessing) -> Array:
    """Return the input pixels ``(N, 2)`` of directions in the optical frame. The inverse of `pixel_rays`.

    ray_N3: directions of any length with z > 0.
    """
    K = input_intrinsics(camera, preprocessing)
    ray_N2 = ray_N3[:, :2] / ray_N3[:, 2:]
    if not (preprocessing.undistort or camera.distortion_model == "none"):
        distortion = np.asarray(camera.distortion)
        if camera.distortion_model == "equidistant":
            distorted = cv2.fisheye.distortPoints(ray_N2[:, None], np.eye(3), distortion)
        else:
            points = np.concatenate([ray_N2, np.ones((len(ray_N2), 1))], axis=1)
            zero = np.zeros(3)
            distorted, _ = cv2.projectPoints(points, zero, zero, np.eye(3), distortion)
        ray_N2 = np.asarray(distorted[:, 0], np.float64)
    return ray_N2 * np.diag(K)[:2] + K[:2, 2]


def view_bounds(camera: Camera, preprocessing: Preprocessing) -> tuple[Array, Array]:
    """Return the smallest and largest normalised image coordinates in the network's input, each ``(2,)``."""
    columns = np.linspace(0.0, preprocessing.input_width - 1.0, BORDER_PROBES)
    rows = np.linspace(0.0, preprocessing.input_height - 1.0, BORDER_PROBES)
    grid = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    rays = pixel_rays(grid, camera, preprocessing)
    return rays.min(axis=0), rays.max(axis=0)


def overlapping_images(
    T_map_camera_N44: Array,
    bounds: tuple[Array, Array],
    *,
    reach_m: float,
    smallest_overlap: float,
    seed: int,
) -> list[NDArray[np.int64]]:
    """Return for each image the indices of the images whose views overlap with its view.

    Two images overlap when their cameras are within `reach_m` of each other and each sees at least
    `smallest_overlap` of the other's view. To measure this share, points are placed on a grid of rays of one
    camera, at depths of one and four times the reach. The share is that of the points inside the other
    camera's image. Occlusion is not considered. An image gets at most `MOST_PARTNERS` partners, drawn with
    `seed` if there are more. bounds: see `view_bounds`.
    """
    random = np.random.default_rng(seed)
    tree = cKDTree(T_map_camera_N44[:, :3, 3])
    candidates = tree.query_ball_point(T_map_camera_N44[:, :3, 3], reach_m)
    assert isinstance(candidates, np.ndarray)  # an object array with one list for each camera
    low, high = bounds
    columns, rows = (
        low[i] + (high[i] - low[i]) * (np.arange(PROBES[i]) + 0.5) / PROBES[i] for i in (0, 1)
    )
    rays = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    rays = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)
    points = np.concatenate([depth * reach_m * rays for depth in PROBE_DEPTHS])

    partners = []
    for own, near in enumerate(candidates):
        others = np.asarray([other for other in near if other != own], np.int64)
        if len(others) > 2 * MOST_PARTNERS:
            others = np.sort(random.choice(others, 2 * MOST_PARTNERS, replace=False))
        T_other_own = invert(T_map_camera_N44[others]) @ T_map_camera_N44[own]
        overlap = np.minimum(
            _share_seen(points, T_other_own, low, high),
            _share_seen(points, invert(T_other_own), low, high),
        )
        others = others[overlap >= smallest_overlap]
        if len(others) > MOST_PARTNERS:
            others = np.sort(random.choice(others, MOST_PARTNERS, replace=False))
        partners.append(others)
    return partners


def _share_seen(points_P3: Array, T_N44: Array, low: Array, high: Array) -> Array:
    """Return the share of the points that each transform moves into the bounds of the view, ``(N,)``."""
    moved = points_P3 @ np.swapaxes(T_N44[:, :3, :3], 1, 2) + T_N44[:, None, :3, 3]
    depth = np.maximum(moved[..., 2:], 1e-9)
    projected = moved[..., :2] / depth
    inside = (moved[..., 2] > 1e-9) & ((projected >= low) & (projected <= high)).all(axis=-1)
    return inside.mean(axis=1)
