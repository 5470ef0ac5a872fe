"""What one answer says about itself: signs of how hard the image was, and of being lost."""

from __future__ import annotations

from dataclasses import dataclass

from rgsiam_ros.geometry.poses import Array


@dataclass(frozen=True)
class Disagreement:
    """How a refined pose stands to its sources."""

    absolute_m: float
    """Distance of the absolute branch's position."""
    absolute_rad: float
    """Angle to the absolute branch's rotation."""
    support: float
    """Share of the neighbours' weight that agrees with the refined pose, 0..1."""
    spread_m: float
    """Root mean square distance of the hypotheses' positions to the refined one, outliers set down."""
    sigma_m: float
    """What the relative unit's information promises for the position of all hypotheses together."""
    nearest_m: float
    """Distance of the nearest map image that was looked at."""
    change_m: float
    """How far the second look moved the pose of the first, its rotation counted in."""


@dataclass(frozen=True)
class Evidence:
    """What one answer says about itself."""

    feature_distance: float = 0.0
    """Length of the difference to the most similar map feature, 0..2; 0 without a map."""
    last_feature_distance: float = 0.0
    """The same to the last of the neighbours."""
    raw_sigma_6: Array | None = None
    """The absolute branch's own standard deviations in the camera's axes: metres, radians."""
    disagreement: Disagreement | None = None
    """Of a refined pose."""
