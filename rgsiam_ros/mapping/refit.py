"""Fit the trust threshold and the covariance of a map anew, on images of a drive of another day."""

from __future__ import annotations

import numpy as np

from rgsiam_ros.bundle.doubts import LEAST_ANSWERED
from rgsiam_ros.bundle.geometric_part import GeometricFit, GeometricPart, GeometricValidation
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.geometric import GeometricBranch
from rgsiam_ros.mapping.drive_poses import DrivePoses
from rgsiam_ros.mapping.frame_features import FrameFeatures
from rgsiam_ros.mapping.held_out import HeldOut
from rgsiam_ros.mapping.labels import Labels
from rgsiam_ros.mapping.validation import Validated, validate


def refit(
    branch: GeometricBranch,
    labels: Labels,
    features: FrameFeatures,
    poses: DrivePoses,
    part: GeometricPart,
    K: Array,
) -> tuple[Validated | None, GeometricFit]:
    """The validation of a map by a new drive, and the fit that follows; None and the old fit if too few images are localized.

    branch, part: of the map before it gets the drive: it answers as on another day. Those images count that a new map would
    hold out. The threshold never falls: what gave wrong poses in the older sessions' images still does.
    """
    held_out = [
        HeldOut.of(features, i, poses.T_points_camera_N44[i])
        for i in np.flatnonzero(labels.held_out_N).tolist()
    ]
    found = validate(branch, held_out, K, part.fewest_inliers, part.limits)
    threshold = max(found.trust.threshold, part.trust_threshold)
    found = found.with_threshold(threshold)
    if not found.fitted or found.recorded.answered_N.mean() < LEAST_ANSWERED:
        return None, fit_of(part)
    count = len(held_out), len(labels.frames)
    kind = (
        f"{count[0]} of {count[1]} frames of the drive that was added last, by the map without it"
    )
    fit = GeometricFit(
        trust_threshold=threshold,
        validation=GeometricValidation(**found.summary(kind)),
        **vars(found.uncertainty),
    )
    return found, fit


def fit_of(part: GeometricPart) -> GeometricFit:
    """The fit of a map."""
    return GeometricFit(**{name: getattr(part, name) for name in GeometricFit.model_fields})
