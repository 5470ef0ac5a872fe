"""Triangulate points from images with known poses.

A *track* is the set of observations of one point. All tracks are computed at once, in arrays with room for L
observations of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.geometry.poses import Array

SMALLEST_DEPTH = 1e-3
"""Smallest depth of a point in front of a camera, metres."""
STEPS = 12
"""Number of Gauss-Newton steps."""
SEEDS = 4
"""Number of pairs of observations from which each point is first computed."""


@dataclass(frozen=True)
class TriangulatedPoints:
    """P points, each from at most L observations."""

    position_P3: Array
    """Metres in the map frame."""
    residual_PL: Array
    """Reprojection errors, pixels; infinite behind a camera and where there is no observation."""
    parallax_P: Array
    """Largest angle between two rays of good observations, radians."""
    information_P33: Array
    """Information matrix of the position, 1 / metres^2, if each coordinate of a pixel has a standard
    deviation of one pixel."""


def triangulate(
    origin_PL3: Array,
    R_camera_map_PL33: Array,
    pixel_PL2: Array,
    valid_PL: NDArray[np.bool_],
    K: Array,
    limit_px: float,
) -> TriangulatedPoints:
    """Triangulate P tracks.

    origin_PL3: camera centres in the map frame, metres; R_camera_map_PL33: rotations from map axes to camera
    axes; pixel_PL2: observations in pixels of a pinhole camera; valid_PL: which observations exist: at least
    two of each track, and they are the first ones of their row; K: intrinsic matrix; limit_px: an observation
    with a larger reprojection error is wrong. The position minimises the sum of a Cauchy function of the
    errors. It starts from the pair of observations that most of the others agree with.
    """
    ray_PL3 = _rays(pixel_PL2, K, R_camera_map_PL33)
    position, best = np.zeros((len(ray_PL3), 3)), np.full(len(ray_PL3), np.inf)
    for first, second in _seed_pairs(ray_PL3, valid_PL):
        candidate = _closest_point(origin_PL3, ray_PL3, first, second)
        residual = _residuals(candidate, origin_PL3, R_camera_map_PL33, pixel_PL2, valid_PL, K)[0]
        limited = np.minimum(np.where(valid_PL, residual, 0.0) / limit_px, 1.0)
        cost = np.square(limited).sum(axis=1)
        better = cost < best
        position = np.where(better[:, None], candidate, position)
        best = np.where(better, cost, best)
    scale = 0.5 * limit_px
    for _ in range(STEPS):
        position = _step(position, origin_PL3, R_camera_map_PL33, pixel_PL2, valid_PL, K, scale)[0]
    _, information = _step(position, origin_PL3, R_camera_map_PL33, pixel_PL2, valid_PL, K, scale)
    residual, _ = _residuals(position, origin_PL3, R_camera_map_PL33, pixel_PL2, valid_PL, K)
    good = residual <= limit_px
    return TriangulatedPoints(
        position, residual, _parallax(position, origin_PL3, good), information
    )


def _rays(pixel_PL2: Array, K: Array, R_camera_map_PL33: Array) -> Array:
    x = (pixel_PL2[..., 0] - K[0, 2]) / K[0, 0]
    y = (pixel_PL2[..., 1] - K[1, 2]) / K[1, 1]
    ray = np.stack([x, y, np.ones_like(x)], axis=-1)
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    return np.einsum("plji,plj->pli", R_camera_map_PL33, ray)


def _seed_pairs(
    ray_PL3: Array, valid_PL: NDArray[np.bool_]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of observations of each track: the two rays with the widest angle, and three pairs half a track
    apart.

    A long track has no observation in two of these three. So one wrong observation spoils few pairs.
    """
    L = ray_PL3.shape[1]
    cosine = np.einsum("pli,pmi->plm", ray_PL3, ray_PL3)
    both = valid_PL[:, :, None] & valid_PL[:, None, :]
    widest = np.where(both, cosine, 2.0).reshape(-1, L * L).argmin(axis=1)
    count = valid_PL.sum(axis=1)
    half = count // 2
    starts = [(count - half) * part // (SEEDS - 1) for part in range(SEEDS - 1)]
    return [(widest // L, widest % L), *((start, start + half) for start in starts)]


def _closest_point(
    origin_PL3: Array, ray_PL3: Array, first_P: NDArray[np.int64], second_P: NDArray[np.int64]
) -> Array:
    """The point in the middle of the shortest line between two rays, ``(P, 3)``."""
    rows = np.arange(len(first_P))
    a, b = origin_PL3[rows, first_P], origin_PL3[rows, second_P]
    u, v = ray_PL3[rows, first_P], ray_PL3[rows, second_P]
    between = b - a
    uv = (u * v).sum(axis=1)
    sine2 = np.maximum(1.0 - uv**2, 1e-12)
    along_u = ((between * u).sum(axis=1) - uv * (between * v).sum(axis=1)) / sine2
    along_v = (uv * (between * u).sum(axis=1) - (between * v).sum(axis=1)) / sine2
    return 0.5 * (a + along_u[:, None] * u + b + along_v[:, None] * v)


def _residuals(
    position_P3: Array,
    origin_PL3: Array,
    R_camera_map_PL33: Array,
    pixel_PL2: Array,
    valid_PL: NDArray[np.bool_],
    K: Array,
) -> tuple[Array, Array]:
    """Reprojection errors ``(P, L)``, pixels, and points in the cameras' axes ``(P, L, 3)``."""
    inside = np.einsum("plij,plj->pli", R_camera_map_PL33, position_P3[:, None] - origin_PL3)
    depth = inside[..., 2]
    front = depth > SMALLEST_DEPTH
    safe = np.where(front, depth, 1.0)
    dx = K[0, 0] * inside[..., 0] / safe + K[0, 2] - pixel_PL2[..., 0]
    dy = K[1, 1] * inside[..., 1] / safe + K[1, 2] - pixel_PL2[..., 1]
    return np.where(front & valid_PL, np.hypot(dx, dy), np.inf), inside


def _step(
    position_P3: Array,
    origin_PL3: Array,
    R_camera_map_PL33: Array,
    pixel_PL2: Array,
    valid_PL: NDArray[np.bool_],
    K: Array,
    scale_px: float,
) -> tuple[Array, Array]:
    """The position after a Gauss-Newton step, and the information matrix before it."""
    residual, inside = _residuals(
        position_P3, origin_PL3, R_camera_map_PL33, pixel_PL2, valid_PL, K
    )
    usable = np.isfinite(residual)
    depth = np.where(usable, inside[..., 2], 1.0)
    error = np.stack(
        [
            K[0, 0] * inside[..., 0] / depth + K[0, 2] - pixel_PL2[..., 0],
            K[1, 1] * inside[..., 1] / depth + K[1, 2] - pixel_PL2[..., 1],
        ],
        axis=-1,
    )
    weight = np.where(usable, 1.0 / (1.0 + (np.where(usable, residual, 0.0) / scale_px) ** 2), 0.0)
    zero = np.zeros_like(depth)
    slope = np.stack(
        [
            np.stack([K[0, 0] / depth, zero, -K[0, 0] * inside[..., 0] / depth**2], axis=-1),
            np.stack([zero, K[1, 1] / depth, -K[1, 1] * inside[..., 1] / depth**2], axis=-1),
        ],
        axis=-2,
    )
    J = slope @ R_camera_map_PL33
    information = np.einsum("plai,plaj,pl->pij", J, J, weight)
    gradient = np.einsum("plai,pla,pl->pi", J, error, weight)
    damping = 1e-9 * np.trace(information, axis1=1, axis2=2)[:, None, None] + 1e-12
    change = np.linalg.solve(information + damping * np.eye(3), gradient[..., None])[..., 0]
    return position_P3 - change, information


def _parallax(position_P3: Array, origin_PL3: Array, good_PL: NDArray[np.bool_]) -> Array:
    """Largest angle at each point between the directions to two good cameras, radians."""
    direction = origin_PL3 - position_P3[:, None]
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True) + 1e-12
    cosine = np.einsum("pli,pmi->plm", direction, direction)
    both = good_PL[:, :, None] & good_PL[:, None, :]
    return np.arccos(np.clip(np.where(both, cosine, 1.0).min(axis=(1, 2)), -1.0, 1.0))
