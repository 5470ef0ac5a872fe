"""The poses of a camera that three points of the map and their pixels allow: up to four for each sample.

Many samples are solved at once, with numpy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.geometry.poses import Array

SMALLEST_SINE_SQUARED = 1e-6
"""Three points count as collinear if the squared sine of the angle between two edges is smaller."""
PENCIL_MIX = 0.618
"""Keeps symmetric scenes from a pencil whose second conic is a pair of lines. The value is arbitrary."""


def three_point_poses(corner_33S: Array, ray_33S: Array) -> tuple[int, Array]:
    """All poses of the map in the camera that put three points on their rays.

    corner_33S, ray_33S: ``(point, coordinate, sample)``; rays have length 1. Returns the number of samples
    that are not degenerate, and the poses ``[R t]`` of all of them, ``(3, 4, H)``.

    The squared distances between the points are quadratic forms of the three depths. Two combinations of these
    forms are zero: the wanted depths are the common points of two conics. One conic of their pencil is a pair
    of lines. A cubic gives it, and each line meets a conic twice.
    """
    a, b, c = _square_edges(corner_33S)
    regular = 4.0 * a * b * (1.0 - SMALLEST_SINE_SQUARED) > (a + b - c) ** 2
    corner_33S, ray_33S = corner_33S[..., regular], ray_33S[..., regular]
    depth_3H, sample_H = _relative_depths(_square_edges(corner_33S), ray_33S)
    corner_33H, seen_33H = corner_33S[..., sample_H], ray_33S[..., sample_H] * depth_3H[:, None]
    axes = zip(_triad(seen_33H), _triad(corner_33H), strict=True)
    R_33H = sum(seen[:, None] * corner for seen, corner in axes)
    square_scale_H = _square_edges(corner_33H).sum(axis=0) / _square_edges(seen_33H).sum(axis=0)
    t_3H = seen_33H[0] * np.sqrt(square_scale_H) - (R_33H * corner_33H[0]).sum(axis=1)
    return int(regular.sum()), np.concatenate([R_33H, t_3H[:, None]], axis=1)


def _relative_depths(square_3S: Array, ray_33S: Array) -> tuple[Array, NDArray[np.int64]]:
    """Depths ``(3, H)`` of the points, in units of the first, and the sample ``(H,)`` of each solution."""
    a, b, c = square_3S / square_3S.sum(axis=0)
    cos_a, cos_b, cos_c = (_dot(ray_33S[i], ray_33S[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    o, ca, cb, ac, bc = np.zeros_like(a), -cos_a * c, -cos_b * c, cos_c * a, cos_c * b
    first = np.array([[c, ca, o], [ca, c - a, ac], [o, ac, -a]])
    second = np.array([[c, o, cb], [o, -b, bc], [cb, bc, c - b]]) + PENCIL_MIX * first
    root, line_32S = _line_pair(first, second)
    conic = (root * first - second)[:, :, None]  # of the pencil, the least like the pair of lines
    # On a line, depths (1, u, v) are foot + step * along.
    along = np.stack([np.zeros_like(line_32S[0]), -line_32S[2], line_32S[1]])
    along = along / np.sqrt(_dot(along, along))
    foot = _cross(line_32S, along)
    foot = foot / foot[0]
    bent, at_foot = (conic * along).sum(axis=1), (conic * foot).sum(axis=1)
    bend, half, constant = _dot(along, bent), _dot(foot, bent), _dot(foot, at_foot)
    larger = -half - np.copysign(np.sqrt(half * half - bend * constant), half)
    step = np.stack([larger / bend, constant / larger])
    u, v = (foot[axis] + step * along[axis] for axis in (1, 2))
    possible = (u > 0.0) & (v > 0.0)
    depth_3H = np.stack([np.ones(possible.sum()), u[possible], v[possible]])
    return depth_3H, np.flatnonzero(possible) % len(a)


def _line_pair(first_33S: Array, second_33S: Array) -> tuple[Array, Array]:
    """The conic ``first + root * second`` that is a pair of lines: roots and ``(3, 2, S)`` lines, or NaN."""
    of_first, of_second = _adjugate(first_33S), _adjugate(second_33S)
    pairs = ((of_first, first_33S), (of_first, second_33S), (of_second, first_33S))
    d, c, b = (_dot(a, other).sum(axis=0) for a, other in pairs)
    cubic = _dot(of_second, second_33S).sum(axis=0) / 3.0  # the determinant
    root = _cubic_root(b / cubic, c / cubic, d / (3.0 * cubic))
    pair_33S = first_33S + root * second_33S
    # For lines g and h the pair is g h^T + h g^T. Its adjugate is -(g x h) (g x h)^T.
    minus_33S, every = -_adjugate(pair_33S), np.arange(len(root))
    largest = np.argmax(minus_33S[[0, 1, 2], [0, 1, 2]], axis=0)
    column_3S = minus_33S[:, largest, every]
    x, y, z = column_3S / np.sqrt(column_3S[largest, every])
    o = np.zeros_like(x)
    product_33S = pair_33S + np.array([[o, -z, y], [z, o, -x], [-y, x, o]])  # 2 g h^T
    row, column = np.divmod(np.argmax(np.abs(product_33S).reshape(9, -1), axis=0), 3)
    return root, np.stack([product_33S[row, :, every].T, product_33S[:, column, every]], axis=1)


def _cubic_root(b: Array, c: Array, d: Array) -> Array:
    """A real root of ``x^3 + b x^2 + c x + d``: of three, the one farthest from their mean."""
    third = c / 3.0 - b * b / 9.0
    half = (b * (2.0 * b * b / 9.0 - c) / 3.0 + d) / 2.0
    bound = np.cbrt(2.0 * np.abs(half)) + 2.0 * np.sqrt(np.maximum(-third, 0.0))
    x = -np.copysign(bound, half)
    for _ in range(7):  # Newton's steps from a bound come ever closer
        x = (x * x * x - half) / (1.5 * (x * x + third))
    x = x - b / 3.0
    return x - (((x + b) * x + c) * x + d) / ((3.0 * x + 2.0 * b) * x + c)


def _adjugate(symmetric_33S: Array) -> Array:
    """Adjugates of symmetric matrices: cross products of their columns."""
    return _cross(symmetric_33S[:, [1, 2, 0]], symmetric_33S[:, [2, 0, 1]])


def _triad(corner_33H: Array) -> Array:
    """Right-handed orthonormal axes ``(axis, coordinate, H)`` of three points."""
    along = corner_33H[1] - corner_33H[0]
    normal = _cross(along, corner_33H[2] - corner_33H[0])
    along, normal = (v / np.sqrt(_dot(v, v)) for v in (along, normal))
    return np.stack([along, _cross(normal, along), normal])


def _square_edges(corner_33S: Array) -> Array:
    """Squared distances ``(3, S)`` between points 0 and 1, 0 and 2, 1 and 2."""
    edge_33S = corner_33S[[1, 2, 2]] - corner_33S[[0, 0, 1]]
    return (edge_33S * edge_33S).sum(axis=1)


def _dot(a: Array, b: Array) -> Array:
    """Dot products of vectors along the first axis."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: Array, b: Array) -> Array:
    """Cross products of vectors along the first axis."""
    return a[[1, 2, 0]] * b[[2, 0, 1]] - a[[2, 0, 1]] * b[[1, 2, 0]]
