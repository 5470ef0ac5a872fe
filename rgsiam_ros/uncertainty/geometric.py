"""The covariance of a pose of the geometric branch, from the information of its matches.

The inverse of the information, times the variance of a pixel, is the covariance if matches were independent
and the map exact. Neither is true, so the standard deviations of position and rotation are each multiplied by
a factor. The factor grows where descriptors are less similar and inliers are fewer: at night, behind something that
covers the view, far from the mapped road. It is fitted on images that were held out of the map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.uncertainty.covariance import MINIMUM_SIGMA_M, MINIMUM_SIGMA_RAD
from rgsiam_ros.uncertainty.pose_quality import GeometricQuality

REFERENCE_SIMILARITY, SIMILARITY_STEP = 0.9, 0.1
REFERENCE_INLIERS = 200.0
"""At these the factor is as stated. Per step of similarity, and per factor of e in inliers, its logarithm changes by
the slopes."""
EXPECTED_SLOPES = (-0.5, -0.7)
SLOPE_SIGMA = 0.5
"""Slopes for similarity and inliers that were found on three maps, and how far a map's own may lie from them."""
SMALLEST_INFORMATION = 1e-7
"""Share of the largest eigenvalue that every eigenvalue of the scaled information gets at least."""
TINY = 1e-30


@dataclass(frozen=True)
class GeometricUncertainty:
    """From information to covariance."""

    pixel_sigma: float = 1.0
    """Standard deviation of one coordinate of a reprojection, pixels."""
    position_factor: float = 1.0
    """By which the standard deviations of the position are multiplied, at a mean similarity of 0.9 and 200 inliers."""
    rotation_factor: float = 1.0
    position_slopes: tuple[float, float] = (0.0, 0.0)
    """Change of the logarithm of `position_factor` per 0.1 of similarity, and per factor of e in inliers."""
    rotation_slopes: tuple[float, float] = (0.0, 0.0)
    floor_m: float = MINIMUM_SIGMA_M
    """Smallest standard deviation of each coordinate of the position, metres."""
    floor_rad: float = MINIMUM_SIGMA_RAD

    def covariance(self, information_66: Array, quality: GeometricQuality) -> Array:
        """Covariance ``(6, 6)`` in the camera's axes, order x y z rotX rotY rotZ, metres and radians.

        information_66: as `rgsiam_ros.localization.pnp.refine_pose` returns it, in units of 1 / pixel^2.
        """
        grade = _grade(quality)
        factors = [
            factor * math.exp(float(np.dot(slopes, grade)))
            for factor, slopes in (
                (self.position_factor, self.position_slopes),
                (self.rotation_factor, self.rotation_slopes),
            )
        ]
        scale = self.pixel_sigma * np.repeat(factors, 3)
        covariance = np.outer(scale, scale) * _inverse(information_66)
        return covariance + np.diag(np.repeat([self.floor_m**2, self.floor_rad**2], 3))


def _grade(quality: GeometricQuality) -> Array:
    """How much better than the reference the matches are ``(2,)``: in similarity, and in number."""
    return np.array(
        [
            (quality.similarity - REFERENCE_SIMILARITY) / SIMILARITY_STEP,
            math.log(max(quality.inliers, 1) / REFERENCE_INLIERS),
        ]
    )


def fit_uncertainty(
    error_N6: Array,
    information_N66: Sequence[Array],
    quality_N: Sequence[GeometricQuality],
    recorded_N: NDArray[np.bool_],
) -> GeometricUncertainty:
    """The slopes that make the errors of N poses most likely, if they are normally distributed, and the factors.

    error_N6: errors in the camera's axes, order and units as those of `GeometricUncertainty.covariance`;
    information_N66: see there; recorded_N: images that were not spoilt, at least one. With the factors the squared errors
    of these have the predicted size on average.
    The slopes are held near `EXPECTED_SLOPES`, because a small map has few errors.
    """
    residual_px_N = [quality.residual_px for quality in quality_N]
    pixel_sigma = float(max(np.median(residual_px_N) / np.sqrt(2.0), 0.05))
    inverses = pixel_sigma**2 * np.stack([_inverse(matrix) for matrix in information_N66])
    grade_N2 = np.stack([_grade(quality) for quality in quality_N])
    fitted = []
    for part in (slice(0, 3), slice(3, 6)):
        error = error_N6[:, part]
        solved = np.linalg.solve(inverses[:, part, part], error[..., None])[..., 0]
        fitted.append(_fit((error * solved).sum(axis=1) / 3.0, grade_N2, recorded_N))
    (position, position_slopes), (rotation, rotation_slopes) = fitted
    return GeometricUncertainty(pixel_sigma, position, rotation, position_slopes, rotation_slopes)


def _fit(
    square_N: Array, grade_N2: Array, recorded_N: NDArray[np.bool_]
) -> tuple[float, tuple[float, float]]:
    """Factor and slopes for N squared errors per degree of freedom, relative to the predicted ones."""

    def cost(slopes: Array) -> float:
        """Negative log likelihood with the best factor, and the penalty of the slopes."""
        relative_N = square_N * np.exp(-2.0 * grade_N2 @ slopes)
        likely = 1.5 * len(square_N) * math.log(max(float(relative_N.mean()), TINY))
        likely += 3.0 * float((grade_N2 @ slopes).sum())
        return likely + 0.5 * float(np.square((slopes - EXPECTED_SLOPES) / SLOPE_SIGMA).sum())

    slopes = minimize(cost, np.array(EXPECTED_SLOPES), method="BFGS").x
    relative_N = square_N * np.exp(-2.0 * grade_N2 @ slopes)
    factor = float(np.sqrt(relative_N[recorded_N].mean()))
    return max(factor, 1e-3), (float(slopes[0]), float(slopes[1]))


def _inverse(information_66: Array) -> Array:
    """The inverse of an information matrix, finite even where it says nothing about a direction."""
    scale = 1.0 / np.sqrt(np.maximum(np.diag(information_66).astype(np.float64), TINY))
    values, axes = np.linalg.eigh(information_66 * np.outer(scale, scale))
    values = np.maximum(values, SMALLEST_INFORMATION * max(values[-1], 1.0))
    root = scale[:, None] * axes / np.sqrt(values)
    return root @ root.T  # symmetric to the last bit
