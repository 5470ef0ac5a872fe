"""Join the points of a new drive to those of a map, and take a session's out again.

Nothing of the older sessions changes: a point that is not seen any more is only marked. So a session can be taken out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle.map_points import MapPoints, global_bytes
from rgsiam_ros.features.keypoints import from_bytes
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.mapping.matching import MapImage
from rgsiam_ros.mapping.points import PointCloud
from rgsiam_ros.mapping.sightings import Sightings

SAME_SHARE = 0.5
"""A new point is an older one if so many of its keypoints were found to be that. The older point then keeps its look.
On the town in other light, keeping both looks apart, or the mean of both, took more bytes or gave no more right poses."""


def new_points(
    cloud: PointCloud, images: list[MapImage], sightings: Sightings
) -> NDArray[np.bool_]:
    """Which points of a drive's cloud the map does not have yet.

    sightings: of the points in use, by the `images` of the cloud.
    """
    start_N = np.cumsum([0] + [len(image.pixel_N2) for image in images])
    old_K = np.full(start_N[-1], -1)
    old_K[start_N[sightings.image_V] + sightings.keypoint_V] = sightings.point_V
    old_V = old_K[cloud.keypoint_V]
    count_P = np.bincount(cloud.point_V, minlength=len(cloud.position_P3))
    linked = old_V >= 0
    pair, times = np.unique(
        np.stack([cloud.point_V[linked], old_V[linked]]), axis=1, return_counts=True
    )
    new_P = np.ones(len(count_P), bool)
    new_P[pair[0, times >= SAME_SHARE * count_P[pair[0]]]] = False
    return new_P


def joined(
    stored: MapPoints,
    cloud: PointCloud,
    new_P: NDArray[np.bool_],
    images: list[MapImage],
    T_points_camera_N44: Array,
    sightings: Sightings,
    session: int,
) -> MapPoints:
    """The map with another session.

    stored: with removed points; new_P: points of the cloud that the map does not have; images, T_points_camera_N44: the
    map images of the session; sightings: of the points in use, by these images; session: its place in the manifest.
    """
    in_use = np.arange(len(stored.position_P3))
    removed_by_P = np.zeros(len(in_use), np.uint8)
    if stored.removed_by_P is not None:
        removed_by_P, in_use = stored.removed_by_P.copy(), np.flatnonzero(stored.removed_by_P == 0)
    removed_by_P[in_use[sightings.gone_P]] = session
    number = len(removed_by_P) + np.cumsum(new_P) - 1
    own = new_P[cloud.point_V]
    image_V = np.concatenate([cloud.image_V[own], sightings.image_V])
    point_V = np.concatenate([number[cloud.point_V[own]], in_use[sightings.point_V]])
    visible = tuple(np.unique(point_V[image_V == i]) for i in range(len(images)))
    features = [stored.vlad.feature(from_bytes(image.descriptor_ND)) for image in images]
    removed_by_P = np.concatenate([removed_by_P, np.zeros(int(new_P.sum()), np.uint8)])
    grown = MapPoints(
        np.concatenate([stored.position_P3, cloud.position_P3[new_P]]),
        np.concatenate([stored.descriptor_PD, cloud.descriptor_PD[new_P]]),
        np.concatenate([stored.T_points_camera_N44, T_points_camera_N44]),
        np.concatenate([stored.global_feature_NG, global_bytes(np.stack(features))]),
        (*stored.visible, *visible),
        stored.vlad,
        removed_by_P if removed_by_P.any() else None,
    )
    return MapPoints.from_arrays(grown.to_arrays())


def without_session(stored: MapPoints, images_of: list[int], session: int) -> MapPoints:
    """The map without one session. images_of: number of map images of each session; session: its place.

    Points that only this session saw go with it, and those that it removed come back.
    """
    session_N = np.repeat(np.arange(len(images_of)), images_of)
    kept_N = session_N != session
    visible = tuple(seen for seen, kept in zip(stored.visible, kept_N, strict=True) if kept)
    kept_P = np.bincount(np.concatenate(visible), minlength=len(stored.position_P3)) > 0
    removed_by_P = stored.removed_by_P
    left = replace(
        stored,
        T_points_camera_N44=stored.T_points_camera_N44[kept_N],
        global_feature_NG=stored.global_feature_NG[kept_N],
        visible=visible,
    ).kept(kept_P)
    if removed_by_P is not None:
        removed_by_P = removed_by_P[kept_P].copy()
        removed_by_P[removed_by_P == session] = 0
        removed_by_P[removed_by_P > session] -= 1
    left = replace(
        left, removed_by_P=removed_by_P if removed_by_P is not None and removed_by_P.any() else None
    )
    return MapPoints.from_arrays(left.to_arrays())
