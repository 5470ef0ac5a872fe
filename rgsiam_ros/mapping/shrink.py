"""Take a session out of the map of a bundle again: `rgsiam map remove`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.bundle.geometric_part import GeometricFit
from rgsiam_ros.bundle.map_points import MapPoints
from rgsiam_ros.errors import BundleError
from rgsiam_ros.mapping.changed_map import check_target, write_changed
from rgsiam_ros.mapping.joining import without_session

logger = logging.getLogger(__name__)


def remove_session(bundle: Bundle, name: str, out: Path | None = None) -> Bundle:
    """Take a session out of the map of a bundle. Points that it removed come back.

    out: a new folder, None for the bundle's own. The trust and covariance are again those from before the session was
    added, if it was the last one; else they stay. Raises BundleError if there is no such session or no other one, if `out`
    exists, or if no golden view is localized without it.
    """
    part = bundle.manifest.geometric_part
    names = [session.name for session in part.sessions]
    if name not in names:
        raise BundleError(f"{bundle.path} has no session {name}, only {', '.join(names)}")
    if len(names) == 1:
        raise BundleError(f"{bundle.path}: {name} is its only session, and cannot be removed")
    check_target(bundle, out)
    place = names.index(name)
    gone = part.sessions[place]
    left = without_session(bundle.stored_points, [s.images for s in part.sessions], place)
    sessions = [session for session in part.sessions if session is not gone]
    fit: GeometricFit = part
    if place == len(sessions):
        fit = gone.fit_before or part
    else:
        after = sessions[place]
        before = after.fit_before if gone.fit_before is None else gone.fit_before
        sessions[place] = after.model_copy(update={"fit_before": before if place else None})
        logger.info("trust and covariance stay as they are: %s was added before others", name)
    brought = _brought(left, [session.images for session in sessions])
    counted = [
        session.model_copy(update={"points": points})
        for session, points in zip(sessions, brought, strict=True)
    ]
    return write_changed(bundle, out, left, fit, counted)


def _brought(points: MapPoints, images_of: Sequence[int]) -> list[int]:
    """Number of points whose first image is of each session."""
    session_N = np.repeat(np.arange(len(images_of)), images_of)
    return np.bincount(session_N[points.first_images()], minlength=len(images_of)).tolist()
