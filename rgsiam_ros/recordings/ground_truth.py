"""True poses in the frame that a bundle answers in.

`rgsiam georeference` turns a bundle's map into east, north and up, and leaves its frame's name. What was
recorded in that map before, and the run that it was trained by, know nothing of the turn. Their true poses
are taken to be in the frame that the bundle was trained in, and turned like the map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from rgsiam_ros.bundle import Manifest
from rgsiam_ros.errors import BundleError
from rgsiam_ros.geometry.poses import Array, pose_matrix, rotation_vector
from rgsiam_ros.recordings.rosbag import Drive

Report = Callable[[str], None]
SMALLEST_TURN_RAD = 1e-9


def truth_turn(manifest: Manifest, map_frame: str, source: str | Path, report: Report) -> Array:
    """``(4, 4)``: from the frame of recorded true poses to the bundle's map; a rotation about its origin.

    map_frame: of the true poses; source: what they are from; report: told of a turn, and warned where
    the frames differ. Raises BundleError where they differ and the bundle was turned.
    """
    T = pose_matrix(np.zeros(3), manifest.target.turn_wxyz)
    turned = float(np.linalg.norm(rotation_vector(T[:3, :3])))
    if map_frame.lstrip("/") != manifest.map_frame.lstrip("/"):
        apart = (
            f"{source}: its true poses are in the frame {map_frame}, but bundle {manifest.name} "
            f"answers in {manifest.map_frame}"
        )
        if turned > SMALLEST_TURN_RAD:
            raise BundleError(
                f"{apart}, which rgsiam georeference turned: give the bundle of before, or true poses in "
                f"the {manifest.map_frame} that it was trained in (--truth-topic)"
            )
        report(f"{apart}: errors mean something only if both are the same frame")
    elif turned > SMALLEST_TURN_RAD:
        report(
            f"{source}: true poses are turned by {np.degrees(turned):.2f} degrees, as rgsiam georeference "
            f"turned bundle {manifest.name}: they are taken to be in the frame that it was trained in"
        )
    return T


def drive_in_map(drive: Drive, manifest: Manifest, report: Report = lambda _: None) -> Drive:
    """The drive with its true poses in the bundle's map; see `truth_turn`."""
    if not len(drive.truth_stamps_ns):
        return drive
    T = truth_turn(manifest, drive.map_frame, drive.path, report)
    return replace(drive, truth_T_map_base_N44=T @ drive.truth_T_map_base_N44)
