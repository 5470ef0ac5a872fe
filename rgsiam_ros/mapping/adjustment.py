"""Bundle adjustment: move poses and points until the points' pixels fit, and the poses stay near given ones.

Levenberg-Marquardt. The points are eliminated first (Schur complement), so that only the poses are left to solve
for. Their matrix is banded once the images are put in an order in which those that share points are near each
other, and LAPACK solves it. In each step an observation is weighted by a Cauchy function of its error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, solveh_banded
from scipy.sparse import bsr_array, csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.spatial.transform import Rotation

from rgsiam_ros.geometry.poses import Array, rotation_vector

SMALLEST_DEPTH = 1e-3
"""A point must be farther than this in front of a camera, metres."""
FIRST_DAMPING, LARGEST_DAMPING = 1e-4, 1e4
ENOUGH = 1e-4
"""When a step lowers the cost by a smaller share, the adjustment ends."""


@dataclass(frozen=True)
class Observations:
    """V observations of P points by N images."""

    image_V: NDArray[np.int64]
    point_V: NDArray[np.int64]
    pixel_V2: Array
    """Pixels of a pinhole camera."""


@dataclass(frozen=True)
class Priors:
    """The given poses of the N images and how far they may be off."""

    T_map_camera_N44: Array
    sigma_m: float
    """Standard deviation along each axis, metres."""
    sigma_rad: float
    """Standard deviation about each axis, radians."""


@dataclass(frozen=True)
class _System:
    """The normal equations at one state. The 6 unknowns of an image are position and turn in its own axes."""

    pose_N66: Array
    point_P33: Array
    mixed_V63: Array
    pose_gradient_N6: Array
    point_gradient_P3: Array


def adjust(
    T_map_camera_N44: Array,
    position_P3: Array,
    seen: Observations,
    priors: Priors,
    K: Array,
    scale_px: float,
    steps: int,
) -> tuple[Array, Array]:
    """The adjusted poses ``(N, 4, 4)`` and points ``(P, 3)``, metres in the frame of the priors.

    T_map_camera_N44, position_P3: where to start, each point seen at least twice; K: intrinsic matrix; scale_px:
    scale of the Cauchy function, and the standard deviation of a good observation is taken to be one pixel;
    steps: the most steps that are tried.
    """
    order = _image_order(seen, len(T_map_camera_N44), len(position_P3))
    T, points = T_map_camera_N44, position_P3
    cost, damping = _cost(T, points, seen, priors, K, scale_px), FIRST_DAMPING
    system = _normal_equations(T, points, seen, priors, K, scale_px)
    for _ in range(steps):
        try:
            moved, shift = _solve(system, seen, order, damping)
        except LinAlgError:
            damping *= 10.0
            continue
        T_new, points_new = _moved(T, moved), points + shift
        new_cost = _cost(T_new, points_new, seen, priors, K, scale_px)
        if new_cost >= cost:
            damping *= 10.0
            if damping > LARGEST_DAMPING:
                break
            continue
        done = cost - new_cost < ENOUGH * cost
        T, points, cost, damping = T_new, points_new, new_cost, max(0.1 * damping, 1e-9)
        if done:
            break
        system = _normal_equations(T, points, seen, priors, K, scale_px)
    return T, points


def reprojection_errors(
    T_map_camera_N44: Array, position_P3: Array, seen: Observations, K: Array
) -> Array:
    """The error of each observation, pixels; infinite behind a camera, ``(V,)``."""
    return _project(T_map_camera_N44, position_P3, seen, K)[2]


def _project(
    T_map_camera_N44: Array, position_P3: Array, seen: Observations, K: Array
) -> tuple[Array, Array, Array]:
    """Points in the cameras' axes ``(V, 3)``, errors ``(V, 2)`` in pixels and their lengths ``(V,)``."""
    T = T_map_camera_N44[seen.image_V]
    inside = np.einsum("vji,vj->vi", T[:, :3, :3], position_P3[seen.point_V] - T[:, :3, 3])
    front = inside[:, 2] > SMALLEST_DEPTH
    ray = inside / np.where(front, inside[:, 2], 1.0)[:, None]
    error = (ray @ K.T)[:, :2] - seen.pixel_V2
    return inside, error, np.where(front, np.hypot(error[:, 0], error[:, 1]), np.inf)


def _prior_errors(T_map_camera_N44: Array, priors: Priors) -> Array:
    """Position and rotation vector in the given cameras' axes ``(N, 6)``, in standard deviations."""
    given = priors.T_map_camera_N44
    position = T_map_camera_N44[:, :3, 3] - given[:, :3, 3]
    turn = rotation_vector(np.swapaxes(given[:, :3, :3], 1, 2) @ T_map_camera_N44[:, :3, :3])
    return np.hstack([position / priors.sigma_m, turn / priors.sigma_rad])


def _cost(
    T: Array, points: Array, seen: Observations, priors: Priors, K: Array, scale_px: float
) -> float:
    residual = _project(T, points, seen, K)[2]
    behind = ~np.isfinite(residual)
    limited = np.where(behind, 1e3 * scale_px, residual)
    cauchy = scale_px**2 * np.log1p((limited / scale_px) ** 2)
    return float(cauchy.sum() + np.square(_prior_errors(T, priors)).sum())


def _normal_equations(
    T: Array, points: Array, seen: Observations, priors: Priors, K: Array, scale_px: float
) -> _System:
    inside, error, residual = _project(T, points, seen, K)
    usable = np.isfinite(residual)
    weight = np.where(usable, 1.0 / (1.0 + (np.where(usable, residual, 0.0) / scale_px) ** 2), 0.0)
    x, y, z = inside[:, 0], inside[:, 1], np.where(usable, inside[:, 2], 1.0)
    zero = np.zeros_like(z)
    slope_V23 = np.stack(
        [
            np.stack([K[0, 0] / z, zero, -K[0, 0] * x / z**2], axis=1),
            np.stack([zero, K[1, 1] / z, -K[1, 1] * y / z**2], axis=1),
        ],
        axis=1,
    )
    by_point = slope_V23 @ np.swapaxes(T[seen.image_V, :3, :3], 1, 2)
    cross = np.stack(
        [
            np.stack([zero, -inside[:, 2], y], axis=1),
            np.stack([inside[:, 2], zero, -x], axis=1),
            np.stack([-y, x, zero], axis=1),
        ],
        axis=1,
    )
    by_pose = np.concatenate([-by_point, slope_V23 @ cross], axis=2)
    weighted = by_pose * weight[:, None, None]
    pose = _sums(seen.image_V, np.swapaxes(weighted, 1, 2) @ by_pose, len(T))
    gradient = _sums(seen.image_V, np.einsum("vai,va->vi", weighted, error), len(T))
    point_weighted = by_point * weight[:, None, None]
    information = 1.0 / np.array([priors.sigma_m**2] * 3 + [priors.sigma_rad**2] * 3)
    return _System(
        pose + np.diag(information),
        _sums(seen.point_V, np.swapaxes(point_weighted, 1, 2) @ by_point, len(points)),
        np.swapaxes(weighted, 1, 2) @ by_point,
        gradient + _prior_errors(T, priors) * np.sqrt(information),
        _sums(seen.point_V, np.einsum("vai,va->vi", point_weighted, error), len(points)),
    )


def _sums(index_V: NDArray[np.int64], values: Array, size: int) -> Array:
    """The sums of the rows of values with the same index."""
    flat = values.reshape(len(values), -1)
    rows = np.arange(len(values))
    adder = csr_array((np.ones(len(rows)), (index_V, rows)), shape=(size, len(rows)))
    sums: Array = np.asarray(adder @ flat)
    return sums.reshape(size, *values.shape[1:])


def _image_order(seen: Observations, images: int, points: int) -> NDArray[np.int64]:
    """The place of each image in an order in which images that share points are near each other."""
    ones = np.ones(len(seen.image_V), np.int32)
    sees = csr_array((ones, (seen.image_V, seen.point_V)), shape=(images, points))
    place = np.empty(images, np.int64)
    place[reverse_cuthill_mckee(csr_array(sees @ sees.T), symmetric_mode=True)] = np.arange(images)
    return place


def _solve(
    system: _System, seen: Observations, place_N: NDArray[np.int64], damping: float
) -> tuple[Array, Array]:
    """The changes of the poses ``(N, 6)`` and of the points ``(P, 3)``. Raises LinAlgError."""
    images, points = len(system.pose_N66), len(system.point_P33)
    pose = _damped(system.pose_N66, damping)
    inverse = np.linalg.inv(_damped(system.point_P33, damping))
    order = np.lexsort((seen.point_V, place_N[seen.image_V]))
    starts = np.searchsorted(place_N[seen.image_V][order], np.arange(images + 1))
    columns, shape = seen.point_V[order], (6 * images, 3 * points)
    mixed_V63 = system.mixed_V63[order]
    mixed = bsr_array((mixed_V63, columns, starts), shape=shape)
    reduced = bsr_array((mixed_V63 @ inverse[columns], columns, starts), shape=shape)
    image_at = np.argsort(place_N)
    matrix = -(reduced @ mixed.T).tocoo()
    rows, cols, values = matrix.row, matrix.col, matrix.data
    lower = rows >= cols
    rows, cols, values = rows[lower], cols[lower], values[lower]
    banded = np.zeros((max(int((rows - cols).max(initial=0)), 5) + 1, 6 * images))
    banded[rows - cols, cols] = values
    a, b = np.tril_indices(6)
    for i, j in zip(a, b, strict=True):
        banded[i - j, j::6] += pose[image_at, i, j]
    right = (reduced @ system.point_gradient_P3.ravel()) - system.pose_gradient_N6[image_at].ravel()
    solution = solveh_banded(banded, right, lower=True, overwrite_ab=True, check_finite=False)
    gradient = system.point_gradient_P3 + (mixed.T @ solution).reshape(-1, 3)
    shift = -np.einsum("pij,pj->pi", inverse, gradient)
    return solution.reshape(-1, 6)[place_N], shift


def _damped(matrix: Array, damping: float) -> Array:
    """The matrices ``(n, k, k)`` with larger diagonals."""
    diagonal = np.einsum("nii->ni", matrix)
    return matrix + (damping * diagonal + 1e-12)[:, :, None] * np.eye(matrix.shape[1])


def _moved(T_N44: Array, change_N6: Array) -> Array:
    moved = T_N44.copy()
    moved[:, :3, 3] += change_N6[:, :3]
    moved[:, :3, :3] = T_N44[:, :3, :3] @ Rotation.from_rotvec(change_N6[:, 3:]).as_matrix()
    return moved
