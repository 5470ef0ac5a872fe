"""A drive that is to become a session of a map: what is refused before any image is localized."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace

import numpy as np

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.bundle.geometric_part import MOST_SESSIONS, SESSION_NAME
from rgsiam_ros.camera.model import match_view
from rgsiam_ros.errors import BundleError, CameraError, DatasetError
from rgsiam_ros.geometry.poses import Array, invert, pose_matrix
from rgsiam_ros.mapping.label_correction import corrected
from rgsiam_ros.mapping.labels import Labels, read_labels
from rgsiam_ros.mapping.map_sessions import name_of, recorded_on
from rgsiam_ros.recordings.base import Dataset, describe_dropped, fingerprint, poses_of
from rgsiam_ros.recordings.levels import with_levels

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NewSession:
    """A drive whose camera is that of the map."""

    name: str
    dataset: Dataset
    """With the map's time offset, focal length and levels."""
    labels: Labels
    fingerprint: str | None
    """Of the recorded drive; None without labels."""
    recorded: str | None
    """See `rgsiam_ros.bundle.geometric_part.MapSession`."""
    T_points_label_N44: Array | None
    """Labelled poses of its frames in the frame of the map's points, if they are in the map frame. None without labels."""


def new_session(bundle: Bundle, drive: Dataset, name: str | None) -> NewSession:
    """The drive as a session of the bundle's map. Held-out frames are those that a new map would hold out.

    drive: its poses are not finite if it has no labels; name: None for that of the drive. Raises BundleError if the name
    cannot be used, DatasetError for another camera, for too few images, or if the map has the drive already.
    """
    name = _checked_name(bundle, name or name_of(drive.path))
    part = bundle.manifest.geometric_part
    labelled = bool(np.isfinite(poses_of(drive.frames)).all()) if drive.frames else False
    own_print = fingerprint([drive]) if labelled else None
    for session in part.sessions:
        if own_print is not None and own_print == session.fingerprint:
            raise DatasetError(f"{drive.path} is in the map already, as session {session.name}")
    correction = part if labelled else part.model_copy(update={"time_offset_s": 0.0})
    (dataset,) = corrected([drive], correction)
    _check_camera(bundle, dataset)
    if left_out := describe_dropped(dataset):
        logger.warning(left_out)
    dataset = with_levels(dataset, part.preprocessing.levels)
    labels = read_labels([dataset])
    if not labelled:
        labels = replace(labels, held_out_N=np.zeros(len(labels.frames), bool))
    T = _in_points(bundle, labels) if labelled else None
    return NewSession(name, dataset, labels, own_print, recorded_on(drive.frames), T)


def _checked_name(bundle: Bundle, name: str) -> str:
    names = [session.name for session in bundle.manifest.geometric_part.sessions]
    if not re.match(SESSION_NAME, name):
        raise BundleError(
            f"{name!r} cannot be the name of a session: take letters, digits, '_', '.' and '-', at most 64"
        )
    if name in names:
        raise BundleError(f"{bundle.path} has a session {name} already: give another --name")
    if len(names) >= MOST_SESSIONS:
        raise BundleError(
            f"{bundle.path} has {len(names)} sessions, the most that a map can have: remove one first"
        )
    return name


def _check_camera(bundle: Bundle, dataset: Dataset) -> None:
    try:
        identical = match_view(dataset.camera, bundle.manifest.camera).identical
    except CameraError as error:
        raise DatasetError(f"{dataset.path}: {error}") from error
    if not identical:
        raise DatasetError(
            f"{dataset.path} was recorded with another camera ({dataset.camera.describe()}) than the map "
            f"({bundle.manifest.camera.describe()}): use drives of one camera"
        )


def _in_points(bundle: Bundle, labels: Labels) -> Array:
    """Labelled poses in the points' frame. They have the axes of the frame in which the map was built."""
    manifest = bundle.manifest
    placement = manifest.geometric_part.placement
    turn = pose_matrix(np.zeros(3), manifest.turn_wxyz)
    T_points_map = invert(pose_matrix(placement.origin_m, placement.turn_wxyz))
    return T_points_map @ turn @ labels.T_map_camera_N44
