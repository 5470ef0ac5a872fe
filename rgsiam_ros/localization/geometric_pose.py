"""A pose of the geometric branch, and whether it is sure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.uncertainty.geometric_trust import LARGEST_RIVAL_SHARE
from rgsiam_ros.uncertainty.pose_quality import GeometricQuality

UNSURE_SHARE = 0.5
"""A pose is unsure if fewer of its matches agree with it. That tells inexact poses better than the number of inliers, their
spread over the image or their residual, and needs no scale, as their spread in depth and the information do."""
FEWEST_TO_RETRY = 30
"""With fewer inliers it is most likely of another place."""


@dataclass(frozen=True)
class GeometricPose:
    """A pose, and the M matches that it was computed from."""

    T_map_camera: Array
    """``(4, 4)``, metres."""
    information_66: Array
    """See `rgsiam_ros.localization.pnp.refine_pose`."""
    quality: GeometricQuality
    candidates: NDArray[np.int64]
    """Indices of the map images whose points were used: those that look alike, the most similar one first,
    then those near an expected position or near an unsure pose."""
    keypoint_M: NDArray[np.int64]
    """Index of the live keypoint of each match."""
    point_M: NDArray[np.int64]
    """Index of the map point of each match."""
    inlier_M: NDArray[np.bool_]
    searched_keypoint_S: NDArray[np.int64]
    searched_point_S: NDArray[np.int64]
    """The S matches that the pose was searched with, right and wrong: live keypoints and map points."""
    T_map_rival: Array | None = None
    """The best pose in another place, if there is one."""


def is_unsure(found: GeometricPose) -> bool:
    """Whether a second try may help. Two places that look alike stay alike: only one of them would get it."""
    quality = found.quality
    return (
        FEWEST_TO_RETRY <= quality.inliers < UNSURE_SHARE * quality.matches
        and quality.rival_inliers <= LARGEST_RIVAL_SHARE * quality.inliers
    )


def better(one: GeometricPose | None, other: GeometricPose | None) -> GeometricPose | None:
    """The pose with more inliers, the first one if they have equally many; None without any."""
    if one is None or other is None:
        return one or other
    return other if other.quality.inliers > one.quality.inliers else one
