"""Localize the images that were held out of a map, and fit the covariance on their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.features.keypoints import Keypoints
from rgsiam_ros.geometry.poses import Array, pose_errors
from rgsiam_ros.geometry.units import angle_text, length_text
from rgsiam_ros.localization.geometric import GeometricBranch, GeometricPose
from rgsiam_ros.uncertainty.covariance import (
    MINIMUM_SAMPLES,
    pose_error_vectors,
    turn_errors,
)
from rgsiam_ros.uncertainty.geometric import (
    GeometricUncertainty,
    fit_uncertainty,
    why_not_trusted,
)

OUTLYING = 20.0
"""An error of this many times the median is that of a pose in another place. The covariance is not fitted on
it."""


@dataclass(frozen=True)
class Validated:
    """The poses of N held-out images."""

    poses: list[GeometricPose | None]
    inliers_N: NDArray[np.int64]
    answered_N: NDArray[np.bool_]
    """Which images have a pose that may be used."""
    metres_N: Array
    """Position errors; NaN without a pose."""
    radians_N: Array
    """Rotation errors; NaN without a pose."""
    wrong_N: NDArray[np.bool_]
    """Answered images whose error is far beyond all others: they were taken for images of another place."""
    uncertainty: GeometricUncertainty

    @property
    def fitted(self) -> bool:
        """Whether enough images have a right pose to fit the covariance."""
        return int((self.answered_N & ~self.wrong_N).sum()) >= MINIMUM_SAMPLES

    def errors(self) -> tuple[float, float, float, float]:
        """Median and 95th percentile of the position errors, metres, and of the rotation errors, degrees."""
        if not self.answered_N.any():
            return 0.0, 0.0, 0.0, 0.0
        metres = self.metres_N[self.answered_N]
        degrees = np.degrees(self.radians_N[self.answered_N])
        return tuple(  # type: ignore[return-value]
            float(np.percentile(values, q)) for values in (metres, degrees) for q in (50, 95)
        )

    def summary(self, kind: str) -> dict[str, Any]:
        """Fields of the manifest's `GeometricValidation`. kind: how the images were held out, in words."""
        median_m, p95_m, median_deg, p95_deg = self.errors()
        return {
            "kind": kind,
            "frames": len(self.poses),
            "answered": float(self.answered_N.mean()),
            "median_m": median_m,
            "p95_m": p95_m,
            "median_deg": median_deg,
            "p95_deg": p95_deg,
        }

    def describe(self) -> str:
        """One line for a log."""
        median_m, p95_m, median_deg, p95_deg = self.errors()
        wrong = ""
        if self.wrong_N.any():
            wrong = (
                f"; {self.wrong_N.sum()} of them in another place, up to "
                f"{length_text(float(self.metres_N[self.wrong_N].max()))} away, which looks alike"
            )
        return (
            f"{self.answered_N.sum()} of {len(self.poses)} held-out images localized: median "
            f"{length_text(median_m)} and {angle_text(median_deg)}, 95 % within {length_text(p95_m)} and "
            f"{angle_text(p95_deg)}{wrong}"
        )


def validate(
    branch: GeometricBranch,
    keypoints: Sequence[Keypoints],
    T_points_camera_N44: Array,
    K: Array,
    fewest_inliers: int,
) -> Validated:
    """Localize N images with known poses, and fit the covariance on the errors.

    branch: over the map, in the points' frame; keypoints: of each image; T_points_camera_N44: the known
    poses, ``(4, 4)`` each, metres, in that frame; K: intrinsic matrix of the images in which the keypoints
    were found; fewest_inliers: a pose with fewer inliers is no answer.
    """
    poses = [branch.localize(found, K) for found in keypoints]
    inliers = np.array([0 if pose is None else pose.quality.inliers for pose in poses])
    T = np.stack([np.full((4, 4), np.nan) if pose is None else pose.T_map_camera for pose in poses])
    metres, radians = pose_errors(T, T_points_camera_N44)
    answered = np.array(
        [pose is not None and not why_not_trusted(pose.quality, fewest_inliers) for pose in poses]
    )
    uncertainty = GeometricUncertainty()
    wrong = answered & (_outlying(metres, answered) | _outlying(radians, answered))
    right = answered & ~wrong
    if right.sum() >= MINIMUM_SAMPLES:
        error = pose_error_vectors(T[right], T_points_camera_N44[right])
        own_axes = turn_errors(error, np.swapaxes(T[right, :3, :3], 1, 2))
        kept = [pose for pose, ok in zip(poses, right, strict=True) if ok and pose is not None]
        uncertainty = fit_uncertainty(
            own_axes,
            [pose.information_66 for pose in kept],
            np.array([pose.quality.residual_px for pose in kept]),
        )
    return Validated(poses, inliers, answered, metres, radians, wrong, uncertainty)


def _outlying(error_N: Array, answered_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which errors are far beyond those of the other answered images."""
    if not answered_N.any():
        return np.zeros(len(error_N), bool)
    limit = OUTLYING * float(np.median(error_N[answered_N]))
    return answered_N & (np.nan_to_num(error_N, nan=np.inf) > limit)
