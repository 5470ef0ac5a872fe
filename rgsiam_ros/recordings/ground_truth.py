"""Transform true poses to the frame of a bundle's poses.

`rgsiam georeference` rotates a bundle's map to the axes east, north and up, and keeps the name of the map
frame. True poses of earlier recordings and training runs still have the axes before the rotation, under the
same frame name. Therefore all true poses are taken to have the axes of training, and are rotated like the
map.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from rgsiam_ros.bundle import Manifest
from rgsiam_ros.errors import BundleError
from rgsiam_ros.geometry.poses import Array, pose_matrix, rotation_vector
from rgsiam_ros.geometry.units import angle_text
from rgsiam_ros.recordings.rosbag import Drive

logger = logging.getLogger(__name__)

SMALLEST_TURN_RAD = 1e-9


def truth_turn(manifest: Manifest, map_frame: str, source: str | Path) -> Array:
    """Rotation from the frame of the true poses to the bundle's map, ``(4, 4)``, about the map's origin.

    map_frame: frame id of the true poses; source: where they come from, for messages. Logs a rotation, and
    warns if the two frame ids differ. Raises BundleError if they differ and the bundle was rotated.
    """
    T = pose_matrix(np.zeros(3), manifest.turn_wxyz)
    turn_rad = float(np.linalg.norm(rotation_vector(T[:3, :3])))
    if map_frame.lstrip("/") != manifest.map_frame.lstrip("/"):
        frames_differ = (
            f"{source}: the true poses are in the frame {map_frame}, the poses of bundle "
            f"{manifest.name} in {manifest.map_frame}"
        )
        if turn_rad > SMALLEST_TURN_RAD:
            raise BundleError(
                f"{frames_differ}, and rgsiam georeference rotated that bundle: use the bundle from before, "
                f"or give true poses in {manifest.map_frame} (--truth-topic)"
            )
        logger.warning("%s: the errors are wrong unless both are the same frame", frames_differ)
    elif turn_rad > SMALLEST_TURN_RAD:
        logger.info(
            "%s: true poses are rotated by %s, as rgsiam georeference rotated bundle %s",
            source,
            angle_text(float(np.degrees(turn_rad))),
            manifest.name,
        )
    return T


def drive_in_map(drive: Drive, manifest: Manifest) -> Drive:
    """The drive with its true poses in the bundle's map, see `truth_turn`."""
    if not len(drive.truth_stamps_ns):
        return drive
    T = truth_turn(manifest, drive.map_frame, drive.path)
    return drive.turned(T)
