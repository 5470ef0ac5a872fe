"""The scale of a map: how far a camera moves sideways until half of the points that it saw have left its view.

Map images that are this far apart and look the same way share half their points. It follows from the distances of
the points and from the width of the view, not from how closely the images were recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from rgsiam_ros.bundle.parts import MapExtent
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.mapping.matching import MapImage
from rgsiam_ros.mapping.pairs import CANDIDATES, LARGEST_ANGLE, RANKS
from rgsiam_ros.mapping.points import PointCloud, make_points
from rgsiam_ros.mapping.progress import Silent
from rgsiam_ros.mapping.sample_features import sample_features
from rgsiam_ros.recordings.base import Dataset, poses_of

logger = logging.getLogger(__name__)

PLACES = 5
"""Number of places of a recording whose images are looked at."""
POINTS_AN_IMAGE = 250
FEWEST_OBSERVATIONS = 200
"""The scale is not estimated from fewer observations of points."""


def scale_of_points(cloud: PointCloud, T_map_camera_N44: Array, K: Array, width: int) -> float:
    """The scale of a map, metres.

    K, width: intrinsic matrix and width of the image in which the points were found.
    """
    T = T_map_camera_N44[cloud.image_V]
    ray_V3 = cloud.position_P3[cloud.point_V] - T[:, :3, 3]
    depth_V = np.einsum("vi,vi->v", ray_V3, T[:, :3, 2])
    room_V2 = np.stack([cloud.pixel_V2[:, 0], width - cloud.pixel_V2[:, 0]])
    # the sideways move, to the left or to the right, after which each point leaves the view
    return float(np.median(room_V2 * depth_V / K[0, 0]))


def scale_of_images(datasets: Sequence[Dataset]) -> float | None:
    """The scale of the map that `datasets` would give, from the images of a few places: seconds of CPU.

    None if they show too few points. The datasets are of one camera, see `common_camera`. Raises DatasetError if an
    image cannot be read.
    """
    T_N44 = np.concatenate([poses_of(dataset.frames) for dataset in datasets])
    chosen = _places(T_N44)
    found, K, size_wh = sample_features(datasets, chosen, lambda frames: None)
    images = [MapImage.of(k) for k in found]
    cloud = make_points(images, T_N44[chosen], K, size_wh, POINTS_AN_IMAGE, Silent())
    if len(cloud.point_V) < FEWEST_OBSERVATIONS:
        return None
    return scale_of_points(cloud, T_N44[chosen], K, size_wh[0])


def extent_of(datasets: Sequence[Dataset]) -> MapExtent:
    """As `scale_of_images`, with the limits of right and wrong that follow. Logs both."""
    extent = MapExtent.of_scale(scale_of_images(datasets))
    logger.info(extent.describe())
    return extent


def _places(T_N44: Array) -> NDArray[np.int64]:
    """Indices of a few images, evenly spread, each with neighbours as the map would match them."""
    position, view = T_N44[:, :3, 3], T_N44[:, :3, 2]
    count = min(len(position), CANDIDATES + 1)
    middles = np.linspace(0, len(position) - 1, 2 * PLACES + 1).round().astype(np.int64)[1::2]
    _, nearest = cKDTree(position).query(position[middles], k=count)
    chosen = set(middles.tolist())
    for i, candidates in zip(middles, nearest.reshape(len(middles), count), strict=True):
        kept = candidates[(view[candidates] @ view[i] > np.cos(LARGEST_ANGLE)) & (candidates != i)]
        chosen |= {int(kept[rank]) for rank in RANKS if rank < len(kept)}
    return np.array(sorted(chosen), np.int64)
