"""The covariance of a pose of the geometric branch, from the information of its matches.

The inverse of the information, times the variance of a pixel, is the covariance if matches were independent
and the map exact. Neither is true, so the standard deviations of position and rotation are each multiplied by
a factor. The factor grows where descriptors are less similar: at night, behind something that covers the view, far from
the mapped road. It is fitted on images that were held out of the map. It falls only up to the similarity
that most of them reach: more similar matches are not more exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import gammainc, gammaincinv

from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.uncertainty.covariance import MINIMUM_SIGMA_M, MINIMUM_SIGMA_RAD
from rgsiam_ros.uncertainty.pose_quality import GeometricQuality

TRIMMED = 0.02
"""Share of the largest errors that the factors leave out: a few labels are wrong."""
REFERENCE_SIMILARITY, SIMILARITY_STEP = 0.9, 0.1
"""At this similarity the factor is as stated. Per step, its logarithm changes by the slope."""
EXPECTED_SLOPE, SLOPE_SIGMA = -0.7, 0.5
"""A slope that was found on three maps, and how far a map's own may lie from it."""
LIMIT_SHARE = 0.25
"""This share of the images as recorded has less similar matches than `GeometricUncertainty.largest_similarity`."""
SMALLEST_INFORMATION = 1e-7
"""Share of the largest eigenvalue that every eigenvalue of the scaled information gets at least."""
FEWEST_FITTED = 6
"""Fewer images as recorded cannot be fitted on. With so many the factors are known to about a fifth: each has three errors."""
UNFITTED_FACTOR = 5.0
"""Both factors where nothing was fitted: on three maps they were between 1.3 and 5 for the recording's own images."""
TINY = 1e-30
Number = TypeVar("Number", float, Array)


@dataclass(frozen=True)
class GeometricUncertainty:
    """From information to covariance."""

    pixel_sigma: float = 1.0
    """Standard deviation of one coordinate of a reprojection, pixels."""
    position_factor: float = 1.0
    """By which the standard deviations of the position are multiplied, at a mean similarity of 0.9."""
    rotation_factor: float = 1.0
    position_slope: float = 0.0
    """Change of the logarithm of `position_factor` per 0.1 of similarity."""
    rotation_slope: float = 0.0
    largest_similarity: float = 1.0
    """More similar matches count as this similar."""
    floor_m: float = MINIMUM_SIGMA_M
    """Smallest standard deviation of each coordinate of the position, metres."""
    floor_rad: float = MINIMUM_SIGMA_RAD

    def covariance(self, information_66: Array, quality: GeometricQuality) -> Array:
        """Covariance ``(6, 6)`` in the camera's axes, order x y z rotX rotY rotZ, metres and radians.

        information_66: as `rgsiam_ros.localization.pnp.refine_pose` returns it, in units of 1 / pixel^2.
        """
        grade = _grade(min(quality.similarity, self.largest_similarity))
        factors = [
            self.position_factor * math.exp(self.position_slope * grade),
            self.rotation_factor * math.exp(self.rotation_slope * grade),
        ]
        scale = self.pixel_sigma * np.repeat(factors, 3)
        covariance = np.outer(scale, scale) * _inverse(information_66)
        return covariance + np.diag(np.repeat([self.floor_m**2, self.floor_rad**2], 3))


UNFITTED = GeometricUncertainty(
    position_factor=UNFITTED_FACTOR,
    rotation_factor=UNFITTED_FACTOR,
    position_slope=EXPECTED_SLOPE,
    rotation_slope=EXPECTED_SLOPE,
)
"""For a map with too few held-out images: wide rather than too small."""


def _grade(similarity: Number) -> Number:
    """How much more similar than the reference the matches are, in steps."""
    return (similarity - REFERENCE_SIMILARITY) / SIMILARITY_STEP


def fit_uncertainty(
    error_N6: Array,
    information_N66: Sequence[Array],
    quality_N: Sequence[GeometricQuality],
    recorded_N: NDArray[np.bool_],
) -> GeometricUncertainty:
    """The slopes that make the errors of N poses most likely, if they are normally distributed, and the factors.

    error_N6: errors in the camera's axes, order and units as those of `GeometricUncertainty.covariance`;
    information_N66: see there; recorded_N: images that were not spoilt, at least one. With the factors the squared errors
    of these have the predicted size on average. The largest are left out, and the mean of the others is compared with what it
    is for normally distributed errors of which as many were left out.
    The slopes are held near `EXPECTED_SLOPE`, because a small map has few errors.
    """
    residual_px_N = [quality.residual_px for quality in quality_N]
    pixel_sigma = float(max(np.median(residual_px_N) / np.sqrt(2.0), 0.05))
    inverses = pixel_sigma**2 * np.stack([_inverse(matrix) for matrix in information_N66])
    similarity_N = np.array([quality.similarity for quality in quality_N])
    largest = float(np.quantile(similarity_N[recorded_N], LIMIT_SHARE))
    grade_N = _grade(similarity_N)
    limited_N = _grade(np.minimum(similarity_N, largest))
    fitted = []
    for part in (slice(0, 3), slice(3, 6)):
        error = error_N6[:, part]
        solved = np.linalg.solve(inverses[:, part, part], error[..., None])[..., 0]
        square_N = (error * solved).sum(axis=1) / 3.0
        slope = _slope(square_N, grade_N)
        relative_N = square_N * np.exp(-2.0 * slope * limited_N)
        fitted.append((_factor(relative_N[recorded_N]), slope))
    (position, position_slope), (rotation, rotation_slope) = fitted
    return GeometricUncertainty(
        pixel_sigma, position, rotation, position_slope, rotation_slope, largest
    )


def _slope(square_N: Array, grade_N: Array) -> float:
    """The slope for N squared errors per degree of freedom, relative to the predicted ones."""

    def cost(slope: float) -> float:
        """Negative log likelihood with the best factor, and the penalty of the slope."""
        relative_N = square_N * np.exp(-2.0 * slope * grade_N)
        likely = 1.5 * len(square_N) * math.log(max(float(relative_N.mean()), TINY))
        likely += 3.0 * slope * float(grade_N.sum())
        return likely + 0.5 * ((slope - EXPECTED_SLOPE) / SLOPE_SIGMA) ** 2

    return float(minimize_scalar(cost, (EXPECTED_SLOPE, EXPECTED_SLOPE + SLOPE_SIGMA)).x)


def _factor(square_N: Array) -> float:
    """The factor for N squared errors per degree of freedom, relative to the predicted ones."""
    relative = np.sort(square_N)
    kept = relative[: max(1, round((1.0 - TRIMMED) * len(relative)))]
    factor = float(np.sqrt(kept.mean() / _trimmed_mean(len(kept) / len(relative))))
    return max(factor, 1e-3)


def _trimmed_mean(share: float) -> float:
    """Mean of the smallest `share` of a third of chi-squared numbers with three degrees of freedom."""
    limit = float(gammaincinv(1.5, share))  # half of that quantile of chi-squared
    return float(gammainc(2.5, limit) / share)


def _inverse(information_66: Array) -> Array:
    """The inverse of an information matrix, finite even where it says nothing about a direction."""
    scale = 1.0 / np.sqrt(np.maximum(np.diag(information_66).astype(np.float64), TINY))
    values, axes = np.linalg.eigh(information_66 * np.outer(scale, scale))
    values = np.maximum(values, SMALLEST_INFORMATION * max(values[-1], 1.0))
    root = scale[:, None] * axes / np.sqrt(values)
    return root @ root.T  # symmetric to the last bit
