"""Where the pixels of the network's input look, and which images look at the same things."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import Preprocessing, centred_crop
from rgsiam_ros.geometry.poses import Array, invert

PROBES = (6, 4)
"""Columns and rows of the grid of rays by which overlap is judged, at the middles of its cells."""
PROBE_DEPTHS = (1.0, 4.0)
"""In units of the reach."""
MOST_PARTNERS = 64
BORDER_PROBES = 9


def input_intrinsics(camera: Camera, preprocessing: Preprocessing) -> Array:
    """``(3, 3)`` intrinsic matrix, pixels, of the network's input image; lens distortion apart."""
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
    """Normalised image coordinates ``(x/z, y/z)`` ``(N, 2)`` of input pixels, distortion undone.

    pixel_N2: column and row in the network's input, whole numbers at the centres of pixels.
    """
    K = input_intrinsics(camera, preprocessing)
    ray_N2 = (np.asarray(pixel_N2, np.float64) - K[:2, 2]) / np.diag(K)[:2]
    if preprocessing.undistort or camera.distortion_model == "none":
        return ray_N2
    distortion = np.asarray(camera.distortion)
    undo = cv2.fisheye if camera.distortion_model == "equidistant" else cv2
    return undo.undistortPoints(ray_N2[:, None], np.eye(3), distortion)[:, 0]


def project(ray_N3: Array, camera: Camera, preprocessing: Preprocessing) -> Array:
    """Input pixels ``(N, 2)`` at which directions in the camera appear; the inverse of `pixel_rays`.

    ray_N3: of any length, z > 0.
    """
    K = input_intrinsics(camera, preprocessing)
    ray_N2 = ray_N3[:, :2] / ray_N3[:, 2:]
    if not (preprocessing.undistort or camera.distortion_model == "none"):
        distortion = np.asarray(camera.distortion)
        if camera.distortion_model == "equidistant":
            seen = cv2.fisheye.distortPoints(ray_N2[:, None], np.eye(3), distortion)
        else:
            points = np.concatenate([ray_N2, np.ones((len(ray_N2), 1))], axis=1)
            none = np.zeros(3)
            seen, _ = cv2.projectPoints(points, none, none, np.eye(3), distortion)
        ray_N2 = np.asarray(seen[:, 0], np.float64)
    return ray_N2 * np.diag(K)[:2] + K[:2, 2]


def view_bounds(camera: Camera, preprocessing: Preprocessing) -> tuple[Array, Array]:
    """Least and greatest normalised image coordinates, each ``(2,)``, in the network's input."""
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
    """For each image the others that see enough of what it sees, at most 64, drawn with the seed.

    Candidates have cameras within `reach_m` of each other. A grid of rays of one camera is followed
    to the reach and to four times the reach, and the share of those points that falls into the other
    camera's image is the overlap; of the two directions the smaller one counts. Hidden things are
    not known here. bounds: see `view_bounds`.
    """
    random = np.random.default_rng(seed)
    tree = cKDTree(T_map_camera_N44[:, :3, 3])
    candidates = tree.query_ball_point(T_map_camera_N44[:, :3, 3], reach_m)
    assert isinstance(candidates, np.ndarray)  # of lists: one for each point
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
    """Share of points that each of the transforms brings into the image's bounds, ``(N,)``."""
    moved = points_P3 @ np.swapaxes(T_N44[:, :3, :3], 1, 2) + T_N44[:, None, :3, 3]
    depth = np.maximum(moved[..., 2:], 1e-9)
    seen = moved[..., :2] / depth
    inside = (moved[..., 2] > 1e-9) & ((seen >= low) & (seen <= high)).all(axis=-1)
    return inside.mean(axis=1)
