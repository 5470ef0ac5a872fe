"""The poses of a drive's images in the frame of a map's points, from the drive's labels and from where the map found it.

1. Labels that agree with the map's own poses are taken as they are.
2. Other labels are taken as odometry: they say how the images lie to one another over a short way. Each image gets the
   poses that the trusted images around it predict by the labels, averaged. So labels of another frame fit, and labels that
   drift. Trusted images of which the labels say that they cannot be where the map found them are left out.
3. Without labels only images that the map found have a pose, their own. Those far from the images before are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from rgsiam_ros.geometry.poses import Array, invert, pose_errors
from rgsiam_ros.geometry.units import angle_text, length_text
from rgsiam_ros.uncertainty.geometric_trust import RIGHT_DEG, ErrorLimits

AROUND = 4
"""Number of trusted images before and after an image that predict its pose."""
Source = Literal["labels", "aligned", "localized"]
"""See `rgsiam_ros.bundle.geometric_part.MapSession.poses`."""


@dataclass(frozen=True)
class DrivePoses:
    """Poses of the N images of a drive."""

    T_points_camera_N44: Array
    """NaN for an image without a pose."""
    found_N: NDArray[np.bool_]
    """Images that the map found where they are."""
    source: Source
    median_m: float = 0.0
    """Median distance of the trusted poses from these poses, metres."""
    median_deg: float = 0.0
    """The same for the rotations."""

    @property
    def known_N(self) -> NDArray[np.bool_]:
        """Images that have a pose."""
        return np.asarray(np.isfinite(self.T_points_camera_N44).all(axis=(1, 2)), np.bool_)

    def describe(self) -> str:
        """One line for a log."""
        apart = f"{length_text(self.median_m)} and {angle_text(self.median_deg)} from the map's own poses (median)"
        return {
            "labels": f"its labelled poses are used: {apart}",
            "aligned": f"its labelled poses are not in the frame of the map, and are aligned with it place by place: {apart}",
            "localized": "it has no poses: images lie where the map found them",
        }[self.source]


def drive_poses(
    T_points_label_N44: Array | None,
    T_localized_N44: Array,
    trusted_N: NDArray[np.bool_],
    session_N: NDArray[np.int64],
    limits: ErrorLimits,
    reach_m: float,
) -> DrivePoses:
    """The poses of N images.

    T_points_label_N44: labelled poses, as if they were in the frame of the map, None without any; T_localized_N44: poses
    that the map gives, where `trusted_N` says so; session_N: number of the session of each image; limits: labels that are
    mostly right in the map are in its frame; reach_m: labels are used over this way, and images without labels are nearer
    to the one before.
    """
    T_label, T_found = T_points_label_N44, T_localized_N44
    if T_label is None:
        found_N = _consistent(
            trusted_N,
            session_N,
            lambda i, j: bool(
                np.linalg.norm(T_found[i, :3, 3] - T_found[j, :3, 3]) <= reach_m * (j - i)
            ),
        )
        return DrivePoses(np.where(found_N[:, None, None], T_found, np.nan), found_N, "localized")
    metres, radians = pose_errors(T_found[trusted_N], T_label[trusted_N])
    if not len(metres) or (
        np.median(metres) <= limits.right_m and np.median(np.degrees(radians)) <= RIGHT_DEG
    ):
        return _judged(T_label, T_found, trusted_N, limits, "labels")

    def close(i: int, j: int) -> bool:
        predicted = T_found[i] @ invert(T_label[i]) @ T_label[j]
        apart = pose_errors(predicted[None], T_found[j][None])
        return not limits.wrong(apart[0], np.degrees(apart[1])).any()

    usable_N = _consistent(trusted_N, session_N, close)
    T_aligned = _aligned(T_label, T_found, usable_N, session_N, reach_m)
    return _judged(T_aligned, T_found, usable_N, limits, "aligned")


def _judged(
    T_N44: Array,
    T_found_N44: Array,
    trusted_N: NDArray[np.bool_],
    limits: ErrorLimits,
    source: Source,
) -> DrivePoses:
    """Poses, and which images the map found there. Every trusted image has a pose."""
    found_N = trusted_N.copy()
    if not trusted_N.any():
        return DrivePoses(T_N44, found_N, source)
    metres, radians = pose_errors(T_found_N44[trusted_N], T_N44[trusted_N])
    found_N[trusted_N] = ~limits.wrong(metres, np.degrees(radians))
    median_deg = float(np.degrees(np.median(radians)))
    return DrivePoses(T_N44, found_N, source, float(np.median(metres)), median_deg)


def _consistent(
    trusted_N: NDArray[np.bool_],
    session_N: NDArray[np.int64],
    close: Callable[[int, int], bool],
) -> NDArray[np.bool_]:
    """In each session the largest group of trusted images of which each is close to the one before it in the group.

    close: whether the poses of two images, the earlier one first, can both be right.
    """
    kept_N = np.zeros(len(trusted_N), bool)
    for session in np.unique(session_N):
        groups: list[list[int]] = []
        for j in np.flatnonzero(trusted_N & (session_N == session)).tolist():
            own = next((group for group in groups if close(group[-1], j)), None)
            if own is None:
                groups.append([j])
            else:
                own.append(j)
        kept_N[max(groups, key=len, default=[])] = True
    return kept_N


def _aligned(
    T_label_N44: Array,
    T_localized_N44: Array,
    trusted_N: NDArray[np.bool_],
    session_N: NDArray[np.int64],
    reach_m: float,
) -> Array:
    """Poses predicted by the trusted images around each image; NaN without any."""
    step_m = np.linalg.norm(np.diff(T_label_N44[:, :3, 3], axis=0), axis=1)
    way_N = np.concatenate([[0.0], np.cumsum(step_m)])
    trusted = np.flatnonzero(trusted_N)
    T_N44 = np.full_like(T_label_N44, np.nan)
    for j, T_label in enumerate(T_label_N44):
        place = int(np.searchsorted(trusted, j))
        around = trusted[max(0, place - AROUND) : place + AROUND + 1]
        around = around[
            (session_N[around] == session_N[j]) & (np.abs(way_N[around] - way_N[j]) <= reach_m)
        ]
        if not len(around):
            continue
        predicted = T_localized_N44[around] @ invert(T_label_N44[around]) @ T_label
        T_N44[j] = np.eye(4)
        T_N44[j, :3, :3] = Rotation.from_matrix(predicted[:, :3, :3]).mean().as_matrix()
        T_N44[j, :3, 3] = np.median(predicted[:, :3, 3], axis=0)
    return T_N44
