"""Figures that tell how good one pose is.

`rgsiam_ros.uncertainty.calibration` predicts a covariance and a trust score from them.
"""

from __future__ import annotations

from dataclasses import dataclass

from rgsiam_ros.geometry.poses import Array


@dataclass(frozen=True)
class RefinedQuality:
    """How well the hypotheses of a refined pose agree, with each other and with the absolute pose."""

    absolute_m: float
    """Distance from the absolute branch's position, metres."""
    absolute_rad: float
    """Angle to the absolute branch's rotation, radians."""
    support: float
    """Share of the hypotheses' weight that agrees with the refined pose, 0..1."""
    spread_m: float
    """Root mean square distance of the hypotheses from the refined position, metres. Outliers count less."""
    sigma_m: float
    """Standard deviation of the position that the relative unit's information implies, metres."""
    nearest_m: float
    """Distance from the refined position to the nearest map image in use, metres."""
    change_m: float
    """Distance between the first and the second estimate: metres, plus metres per radian times the angle."""


@dataclass(frozen=True)
class GeometricQuality:
    """How well a pose of the geometric branch is supported."""

    inliers: int
    """Number of matches that agree with the pose."""
    matches: int
    """Number of matches that the pose was searched with."""
    residual_px: float
    """Root mean square distance of the inliers from their expected pixel."""
    rival_inliers: int = 0
    """The same number for the best pose in another place; 0 without one, or if the place was expected."""


@dataclass(frozen=True)
class PoseQuality:
    """The figures of one pose, of either branch."""

    feature_distance: float = 0.0
    """Distance of the image's metric feature to that of the most similar map image, 0..2. 0 for a bundle
    without a map."""
    last_feature_distance: float = 0.0
    """The same for the least similar neighbour. The
    neighbours are the most similar map images, as many as the manifest says."""
    raw_sigma_6: Array | None = None
    """Standard deviations that the network itself predicts for the absolute pose, in the camera's axes:
    metres, radians."""
    refined_quality: RefinedQuality | None = None
    """Only for a refined pose of the dense relative unit."""
    geometric_quality: GeometricQuality | None = None
    """Only for a refined pose of the geometric branch."""
