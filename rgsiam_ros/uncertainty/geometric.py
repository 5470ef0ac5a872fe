"""The covariance of a pose of the geometric branch, from the information of its matches.

The inverse of the information, times the variance of a pixel, is the covariance if matches were independent
and the map exact. Neither is true, so the standard deviations of position and rotation are each multiplied by
a factor that is fitted on images that were held out of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammainc, gammaincinv

from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.uncertainty.covariance import MINIMUM_SIGMA_M, MINIMUM_SIGMA_RAD
from rgsiam_ros.uncertainty.pose_quality import GeometricQuality

TRIMMED = 0.02
"""Share of the largest errors that the fit leaves out."""
SMALLEST_INFORMATION = 1e-7
"""Share of the largest eigenvalue that every eigenvalue of the scaled information gets at least."""
TINY = 1e-30


LARGEST_RIVAL_SHARE = 0.5
"""If the best pose in another place has more than this share of the inliers, the two places look alike."""


def why_not_trusted(quality: GeometricQuality, fewest_inliers: int) -> str:
    """Why a pose must not be used, in a few words; empty if it may be used."""
    if quality.inliers < fewest_inliers:
        return f"{quality.inliers} matches with the map agree, {fewest_inliers} are needed"
    if quality.rival_inliers > LARGEST_RIVAL_SHARE * quality.inliers:
        return (
            f"two places look alike: {quality.inliers} matches agree with one, {quality.rival_inliers} with "
            "the other"
        )
    return ""


def trust_of(quality: GeometricQuality, fewest_inliers: int) -> float:
    """Score of a pose. The pose is trusted if it is at least 0: the number of inliers is enough, see
    `why_not_trusted`, by a factor of one plus the score.
    """
    rival = max(quality.rival_inliers, 1)
    return (
        min(quality.inliers / fewest_inliers, LARGEST_RIVAL_SHARE * quality.inliers / rival) - 1.0
    )


@dataclass(frozen=True)
class GeometricUncertainty:
    """From information to covariance."""

    pixel_sigma: float = 1.0
    """Standard deviation of one coordinate of a reprojection, pixels."""
    position_factor: float = 1.0
    """By which the standard deviations of the position are multiplied."""
    rotation_factor: float = 1.0
    floor_m: float = MINIMUM_SIGMA_M
    """Smallest standard deviation of each coordinate of the position, metres."""
    floor_rad: float = MINIMUM_SIGMA_RAD

    def covariance(self, information_66: Array) -> Array:
        """Covariance ``(6, 6)`` in the camera's axes, order x y z rotX rotY rotZ, metres and radians.

        information_66: as `rgsiam_ros.localization.pnp.refine_pose` returns it, in units of 1 / pixel^2.
        """
        scale = self.pixel_sigma * np.repeat([self.position_factor, self.rotation_factor], 3)
        covariance = np.outer(scale, scale) * _inverse(information_66)
        return covariance + np.diag(np.repeat([self.floor_m**2, self.floor_rad**2], 3))


def fit_uncertainty(
    error_N6: Array, information_N66: Sequence[Array], residual_px_N: Array
) -> GeometricUncertainty:
    """The factors with which the squared errors of N poses have the predicted size on average.

    error_N6: errors in the camera's axes, order and units as those of `GeometricUncertainty.covariance`;
    information_N66: see there; residual_px_N: root mean square distance of each pose's inliers from their
    expected pixel. The largest errors are left out. The mean of the others is compared with what it is for
    normally distributed errors of which as many were left out.
    """
    pixel_sigma = float(max(np.median(residual_px_N) / np.sqrt(2.0), 0.05))
    inverses = pixel_sigma**2 * np.stack([_inverse(matrix) for matrix in information_N66])
    factors = []
    for part in (slice(0, 3), slice(3, 6)):
        error = error_N6[:, part]
        solved = np.linalg.solve(inverses[:, part, part], error[..., None])[..., 0]
        squares = np.sort((error * solved).sum(axis=1) / 3.0)
        kept = squares[: max(1, round((1.0 - TRIMMED) * len(squares)))]
        expected = _trimmed_mean(len(kept) / len(squares))
        factors.append(float(max(np.sqrt(kept.mean() / expected), 1e-3)))
    return GeometricUncertainty(pixel_sigma, *factors)


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
