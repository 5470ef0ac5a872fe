"""Whether a pose of the geometric branch is right: a score, and a threshold that is fitted to each map.

Even in a place that the map does not show, dozens of matches agree with some pose: keypoints are dense, and pixels fit
by chance. Such matches have less similar descriptors than right ones. The score is a logistic regression on figures of
one pose: right and wrong answers on validation images of three maps (an indoor one, a circuit, a synthetic town), of
which places were withheld, and which were covered, mirrored, dark and blurred. The weights are the same for all
maps. The spread of the inliers over the image, their share of the visible points, their residual and the information of
the pose were tried too. They did not separate better.

Where a bundle has an absolute branch too, the score also asks how far apart both poses are. On the validation images of
the town they were 0.5 to 2.8 standard deviations apart for right poses, and more than 12 for wrong ones, which were at
its twin junctions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.uncertainty.pose_quality import GeometricQuality

SIMILARITY_WEIGHT = 48.0
INLIER_WEIGHT = 0.2
"""By which the logarithm of the number of inliers is multiplied."""
RIVAL_WEIGHT = -2.4
"""By which the rival's inliers, as a share of the pose's inliers, are multiplied."""
OFFSET = -39.5
AGREEMENT_WEIGHT, AGREEMENT_SIGMAS = 3.0, 2.0
"""The score falls with the logarithm of the distance from the absolute pose. At so many standard deviations it stays
as it is."""
MOST_DOUBT = 3.0
"""The score falls by no more than this: in another drive, the logarithm of the odds that a trusted absolute pose is right
is not larger."""
DISAGREEING_SIGMAS = 6.0
"""So far from the absolute pose, this is named as the reason."""
LARGEST_RIVAL_SHARE = 0.5
LEAST_LEAD = 0.05
"""If the best pose in another place has more than this share of the inliers, the two places look alike, unless its
matches are less similar than the pose's by this lead. A place that only has the same shapes has many matches, too, which are
not as similar."""
FALSE_ACCEPTS = 0.01
"""Share of the images that the fitted threshold may accept with a wrong pose."""
KEPT, KEPT_AS_RECORDED = 0.95, 0.99
"""Share of the right poses that the threshold accepts at least: of all images, and of those that are not spoilt."""
ROOM_SCALE_M = 2.5
"""A map with a smaller scale is of a room, see `rgsiam_ros.mapping.map_scale`."""
RIGHT_DEG, WRONG_DEG = 5.0, 20.0


@dataclass(frozen=True)
class ErrorLimits:
    """Which errors make a pose right, and which make it wrong. There are poses between both."""

    right_m: float
    wrong_m: float

    def right(self, metres_N: Array, degrees_N: Array) -> NDArray[np.bool_]:
        """Poses with errors within `right_m` and 5 degrees. NaN is never right."""
        return (metres_N <= self.right_m) & (degrees_N <= RIGHT_DEG)

    def wrong(self, metres_N: Array, degrees_N: Array) -> NDArray[np.bool_]:
        """Poses with an error of more than `wrong_m` or 20 degrees. NaN is never wrong."""
        return (metres_N > self.wrong_m) | (degrees_N > WRONG_DEG)

    @property
    def recall_levels(self) -> tuple[tuple[float, float], ...]:
        """Largest errors, metres and degrees, at which recall is reported, the smallest first."""
        return (self.right_m / 4, 2.0), (self.right_m / 2, RIGHT_DEG), (self.wrong_m, 10.0)

    def describe(self) -> str:
        """Both limits in words."""
        return (
            f"right is within {self.right_m:g} m and {RIGHT_DEG:g} deg, wrong is off by more than "
            f"{self.wrong_m:g} m or {WRONG_DEG:g} deg"
        )


ROOM = ErrorLimits(0.25, 0.5)
OUTDOORS = ErrorLimits(1.0, 5.0)


def limits_for(map_scale_m: float | None) -> ErrorLimits:
    """The limits for a map by its scale, see `rgsiam_ros.mapping.map_scale`. None: unknown, taken as outdoors."""
    return ROOM if map_scale_m is not None and map_scale_m < ROOM_SCALE_M else OUTDOORS


def score_of(quality: GeometricQuality) -> float:
    """Logarithm of the odds that a pose is right rather than wrong, if both were equally frequent."""
    inliers = max(quality.inliers, 1)
    return (
        SIMILARITY_WEIGHT * quality.similarity
        + INLIER_WEIGHT * math.log(inliers)
        + RIVAL_WEIGHT * min(quality.rival_inliers / inliers, 1.0)
        + OFFSET
        + _agreement(quality.absolute_sigmas)
    )


def _agreement(absolute_sigmas: float | None) -> float:
    if absolute_sigmas is None:
        return 0.0
    change = AGREEMENT_WEIGHT * (math.log(2.0) - math.log1p(absolute_sigmas / AGREEMENT_SIGMAS))
    return max(change, -MOST_DOUBT)


@dataclass(frozen=True)
class GeometricTrust:
    """The bar of one map for a pose that may be used."""

    fewest_inliers: int
    threshold: float = 0.0
    """Smallest score, see `score_of`."""

    def why_not(self, quality: GeometricQuality) -> str:
        """Why a pose must not be used, in a few words; empty if it may be used."""
        if quality.inliers < self.fewest_inliers:
            return f"{quality.inliers} matches with the map agree, {self.fewest_inliers} are needed"
        if _lead(quality) < 0.0:
            return (
                f"two places look alike: {quality.inliers} matches agree with one, "
                f"{quality.rival_inliers} with the other"
            )
        if score_of(quality) < self.threshold:
            apart = quality.absolute_sigmas
            if apart is not None and apart > DISAGREEING_SIGMAS:
                return f"the two branches disagree: the absolute pose is {apart:.0f} of its standard deviations away"
            return (
                f"the matches are not similar enough: {quality.inliers} agree, with a mean similarity of "
                f"{quality.similarity:.2f}"
            )
        return ""

    def margin(self, quality: GeometricQuality) -> float:
        """The smallest margin over the bar: at least 0 exactly if the pose may be used, see `why_not`.

        In units of the score. A factor of e in the number of inliers, or in the rival's, counts as 1.
        """
        return min(
            score_of(quality) - self.threshold,
            math.log(max(quality.inliers, 1e-9) / self.fewest_inliers),
            _lead(quality),
        )


def _lead(quality: GeometricQuality) -> float:
    """By how much a pose leads its rival, in units of the score; negative if the two places look alike."""
    inliers, rival = (max(n, 1e-9) for n in (quality.inliers, quality.rival_inliers))
    more_similar = quality.similarity - quality.rival_similarity - LEAST_LEAD
    return max(math.log(LARGEST_RIVAL_SHARE * inliers / rival), SIMILARITY_WEIGHT * more_similar)


def fit_threshold(
    right_score_N: Array, recorded_N: NDArray[np.bool_], wrong_score_M: Array, images: int
) -> float:
    """The threshold that accepts a wrong pose for `FALSE_ACCEPTS` of the images, or a lower one.

    images: number of images that should be lost or could be wrong, of which M got a wrong pose. The threshold accepts at
    least `KEPT` of the N right poses, and `KEPT_AS_RECORDED` of those that `recorded_N` marks: of images that were not
    spoilt. It is never below 0, where right and wrong are equally likely: a few wrong poses of one map cannot tell that
    worse ones do not exist.
    """
    allowed = int(FALSE_ACCEPTS * images)
    if len(wrong_score_M) <= allowed:
        return 0.0
    limits = [math.nextafter(float(np.sort(wrong_score_M)[::-1][allowed]), math.inf)]
    if len(right_score_N):
        limits.append(float(np.quantile(right_score_N, 1.0 - KEPT)))
    if recorded_N.any():
        limits.append(float(np.quantile(right_score_N[recorded_N], 1.0 - KEPT_AS_RECORDED)))
    return max(0.0, min(limits))
