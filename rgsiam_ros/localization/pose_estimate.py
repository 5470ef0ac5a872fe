"""The estimated pose of one image, with what is needed to decide whether it may be used."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from rgsiam_ros.geometry.poses import Array, check_pose
from rgsiam_ros.localization.matches import Matches
from rgsiam_ros.uncertainty.covariance import check_covariance
from rgsiam_ros.uncertainty.pose_quality import PoseQuality

Branch = Literal["absolute", "refined"]
"""The network's pose, or the pose of the geometric branch."""


@dataclass(frozen=True)
class PoseEstimate:
    """The estimated pose of the camera for one image."""

    T_map_camera: Array
    """``(4, 4)`` pose of the camera's optical frame (OpenCV axes) in the map frame, metres."""
    covariance_66: Array
    """Order x y z rotX rotY rotZ about fixed *map* axes; metres and radians."""
    timings_ms: dict[str, float]
    """Milliseconds spent in each stage."""
    branch: Branch = "absolute"
    """The branch that the pose is from."""
    quality: PoseQuality = field(default_factory=PoseQuality)
    """The figures that covariance and trust are predicted from."""
    raw_covariance_66: Array | None = None
    """Covariance of the *absolute* pose as the network predicts it, not calibrated; axes as above."""
    trust: float | None = None
    """Trust score minus threshold, see `rgsiam_ros.uncertainty.calibration`; of the geometric branch: see
    `rgsiam_ros.uncertainty.geometric_trust`. None without a calibration."""
    frozen: bool = False
    """Whether the camera repeats this image."""
    why_no_pose: str = ""
    """Why the image gives no pose, if so. The pose is then that of the most similar map image."""

    matches: Matches | None = None
    """The matches that the pose was computed from. Only of the geometric branch."""

    @property
    def lost(self) -> bool:
        """Whether the pose must not be used."""
        return bool(self.why_lost)

    @cached_property
    def why_lost(self) -> str:
        """The reason in a few words; empty if the pose may be used."""
        if self.frozen:
            return "lost: the camera repeats the same image"
        if self.why_no_pose:
            return f"lost: {self.why_no_pose}"
        if self.trust is not None and np.isnan(self.trust):
            return "lost: trust is not a number"
        if self.trust is not None and self.trust < 0.0:
            return f"lost: trust {self.trust:.2f} is below 0"
        if self.raw_covariance_66 is not None and not np.isfinite(self.raw_covariance_66).all():
            return "lost: the network's own uncertainty is not usable"
        try:
            check_pose(self.T_map_camera)
            check_covariance(self.covariance_66)
        except ValueError as error:
            return f"lost: {error}"
        return ""
