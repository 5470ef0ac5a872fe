"""The images that were held out of a map, each with the map images that it may use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle.map_points import MapPoints
from rgsiam_ros.features.keypoints import Keypoints
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.mapping.frame_features import FrameFeatures
from rgsiam_ros.mapping.labels import Labels
from rgsiam_ros.mapping.withheld import other_passes


@dataclass(frozen=True)
class HeldOut:
    """An image that was held out of the map."""

    keypoints: Keypoints
    T_points_camera: Array
    """Its known pose ``(4, 4)`` in the frame of the points, metres."""
    allowed: NDArray[np.int64] | None = None
    """Map images that it may use, None for all."""
    spoilt: tuple[Keypoints, ...] = ()
    """The same image, darkened, blurred, covered."""
    mirrored: Keypoints | None = None

    @classmethod
    def of(
        cls,
        features: FrameFeatures,
        index: int,
        T_points_camera: Array,
        allowed: NDArray[np.int64] | None = None,
    ) -> HeldOut:
        """A held-out frame, by its index."""
        more = features.spoilt.get(index, ()), features.mirrored.get(index)
        return cls(features.live[index], T_points_camera, allowed, *more)


def held_out_images(
    labels: Labels,
    features: FrameFeatures,
    points: MapPoints,
    shift_m: Array,
    distance_m: float,
) -> list[HeldOut]:
    """All held-out images. shift_m: from the map frame to the points' frame; distance_m: typical, of points."""
    mapped = np.flatnonzero(~labels.held_out_N)
    T_N44 = placed(labels.T_map_camera_N44, shift_m)
    images = []
    for i in np.flatnonzero(labels.held_out_N).tolist():
        allowed = other_passes(
            i, T_N44[i], mapped, points.T_points_camera_N44, labels.session_N, distance_m
        )
        images.append(HeldOut.of(features, i, T_N44[i], allowed))
    return images


def placed(T_N44: Array, shift_m: Array) -> Array:
    """The same poses in a frame whose origin lies at minus `shift_m`."""
    moved = T_N44.copy()
    moved[:, :3, 3] += shift_m
    return moved
