"""Fit the trust threshold and the covariance of a map anew, on held-out images of the drive that was added last."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle.geometric_part import GeometricFit, GeometricPart, GeometricValidation
from rgsiam_ros.bundle.map_points import MapPoints
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.geometric import GeometricBranch
from rgsiam_ros.mapping.drive_poses import DrivePoses
from rgsiam_ros.mapping.frame_features import FrameFeatures
from rgsiam_ros.mapping.held_out import HeldOut
from rgsiam_ros.mapping.labels import Labels, held_out_text
from rgsiam_ros.mapping.validation import Validated, validate
from rgsiam_ros.mapping.withheld import other_passes

OLDER = -1
"""Number of the session of all older map images."""


def refit(
    points: MapPoints,
    labels: Labels,
    features: FrameFeatures,
    poses: DrivePoses,
    mapped: NDArray[np.int64],
    part: GeometricPart,
    K: Array,
    distance_m: float,
) -> tuple[Validated | None, GeometricFit]:
    """The validation of the grown map and the fit that follows; None and the old fit if too few images are localized.

    points: of the grown map, in use; mapped: frames of the drive that are in the map; part: of the map before. Where older
    sessions show the same view, a held-out image uses no image of its own drive: the map answers as on another day. The
    threshold never falls: what gave wrong poses in the older sessions' images still does.
    """
    older = len(points.visible) - len(mapped)
    mapped_I = np.concatenate([np.arange(older), older + mapped])
    session_of = np.concatenate([np.full(older, OLDER), labels.session_N])
    held_out = []
    for i in np.flatnonzero(labels.held_out_N).tolist():
        T = poses.T_points_camera_N44[i]
        allowed = other_passes(
            older + i, T, mapped_I, points.T_points_camera_N44, session_of, distance_m
        )
        more = (features.spoilt.get(i, ()), features.mirrored.get(i))
        held_out.append(HeldOut(features.live[i], T, allowed, *more))
    branch = GeometricBranch(points, np.eye(4), part.candidates)
    found = validate(branch, held_out, K, part.fewest_inliers, part.limits)
    if not found.fitted:
        return None, fit_of(part)
    threshold = max(found.trust.threshold, part.trust_threshold)
    found = found.with_threshold(threshold)
    kind = f"{held_out_text(labels)}; the session is the one that was added last"
    fit = GeometricFit(
        trust_threshold=threshold,
        validation=GeometricValidation(**found.summary(kind)),
        **vars(found.uncertainty),
    )
    return found, fit


def fit_of(part: GeometricPart) -> GeometricFit:
    """The fit of a map."""
    return GeometricFit(**{name: getattr(part, name) for name in GeometricFit.model_fields})
