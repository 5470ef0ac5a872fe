"""Verify matches of two images without their poses: those that fit one essential matrix.

It also says how far the given poses are from the images: the distance of verified matches from the epipolar lines
of the given poses, and the turn between the two relative rotations.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.features.matching import Matches
from rgsiam_ros.geometry.poses import Array, rotation_angle
from rgsiam_ros.mapping.matching import MapImage
from rgsiam_ros.mapping.pairs import epipolar_distances

LIMIT_PX = 1.0
"""Largest distance of a match from its epipolar line, pixels of the local features' image."""
HYPOTHESES = 300
FEWEST_MATCHES = 40
SMALLEST_SHARE = 0.4
"""Pairs in which fewer matches, or a smaller share of them, agree are not used: the essential matrix is then
often wrong."""
LARGEST_TURN = np.radians(10.0)
"""Pairs whose relative rotation is farther than this from that of the given poses are not used."""


@dataclass(frozen=True)
class TwoView:
    """The verified matches of one pair of images."""

    inlier_M: NDArray[np.bool_]
    residual_px: float
    """Median distance of the inliers from the epipolar lines of the given poses."""
    own_px: float
    """Median distance of the inliers from their own epipolar lines, those of the essential matrix."""
    turn_rad: float
    """Angle between the relative rotation that the matches give and that of the given poses."""
    aside_m: float
    """How far the second camera is from the line on which the matches see it from the first."""


def verify(
    first: MapImage, second: MapImage, matches: Matches, T_first_second: Array, K: Array
) -> TwoView | None:
    """Verify the matches of two images. None if too few of them agree.

    T_first_second: relative pose by the given poses, metres; K: intrinsic matrix. OpenCV's search has a seed of
    its own, so the same matches give the same result.
    """
    if len(matches.first_M) < FEWEST_MATCHES:
        return None
    a = first.pixel_N2[matches.first_M].astype(np.float64)
    b = second.pixel_N2[matches.second_M].astype(np.float64)
    essential, mask = cv2.findEssentialMat(
        a, b, K, method=cv2.USAC_MAGSAC, prob=0.999, threshold=LIMIT_PX, maxIters=HYPOTHESES
    )
    if essential is None or essential.shape != (3, 3):
        return None
    inlier = mask.ravel() > 0
    if inlier.sum() < max(FEWEST_MATCHES, SMALLEST_SHARE * len(inlier)):
        return None
    *turns, direction = cv2.decomposeEssentialMat(essential)
    R_second_first = np.stack(turns).astype(np.float64)
    angles = rotation_angle(R_second_first @ T_first_second[:3, :3])
    best = int(angles.argmin())
    if angles[best] > LARGEST_TURN:
        return None
    seen_from_first = -R_second_first[best].T @ direction.ravel()
    aside = np.linalg.norm(np.cross(seen_from_first, T_first_second[:3, 3]))
    T_own = np.eye(4)
    T_own[:3, :3], T_own[:3, 3] = R_second_first[best].T, seen_from_first
    residual_px, own_px = (
        float(np.median(epipolar_distances(a[inlier], b[inlier], T, K)))
        for T in (T_first_second, T_own)
    )
    return TwoView(inlier, residual_px, own_px, float(angles[best]), float(aside))
