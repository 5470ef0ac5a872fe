"""Figures that tell how good one pose is. A covariance and a trust score are predicted from them."""

from __future__ import annotations

from dataclasses import dataclass

from rgsiam_ros.geometry.poses import Array


@dataclass(frozen=True)
class GeometricQuality:
    """How well a pose of the geometric branch is supported."""

    inliers: int
    """Number of matches that agree with the pose."""
    matches: int
    """Number of matches that the pose was searched with."""
    residual_px: float
    """Root mean square distance of the inliers from their expected pixel."""
    similarity: float
    """Mean cosine of the inliers' descriptors with those of their points."""
    rival_inliers: int = 0
    """The same number for the best pose in another place; 0 without one, or if the place was expected."""
    rival_similarity: float = 0.0
    """That pose's mean cosine; 0 without one."""
    absolute_sigmas: float | None = None
    """Distance from the pose of the absolute branch, in that pose's standard deviations along an axis. None
    without one that is trusted, and if the place was expected."""


@dataclass(frozen=True)
class PoseQuality:
    """The figures of one pose, of either branch."""

    feature_distance: float = 0.0
    """Distance of the image's metric feature to that of the most similar map image, 0..2. 0 for a bundle
    without a map."""
    last_feature_distance: float = 0.0
    """The same for the least similar neighbour. The neighbours are the most similar map images, as many as the
    manifest says."""
    raw_sigma_6: Array | None = None
    """Standard deviations that the network itself predicts for the absolute pose, in the camera's axes:
    metres, radians."""
    geometric_quality: GeometricQuality | None = None
    """Only for a pose of the geometric branch."""
