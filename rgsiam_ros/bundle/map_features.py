"""What a bundle keeps of the mapping images, and the look-up of those most like a live image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rgsiam_ros.geometry.poses import Array, angles_between

METRIC_FEATURES = "metric_feature_ND"
LOCAL_MAPS = "local_NCHW"
POSES = "T_map_camera_N44"


@dataclass(frozen=True)
class MapFeatures:
    """Features and poses of N mapping images, in the order they were recorded."""

    metric_feature_ND: NDArray[np.float32]
    """Unit length."""
    local_NCHW: NDArray[np.float16]
    """What the relative unit needs of each image, see `rgsiam_ros.bundle.network_io.MAP_LOCAL`."""
    T_map_camera_N44: Array
    """Camera poses in the map frame, metres."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> MapFeatures:
        """From the arrays of a bundle's ``map_features.npz``.

        Raises ValueError, saying what is wrong, for arrays that do not belong together.
        """
        missing = [n for n in (METRIC_FEATURES, LOCAL_MAPS, POSES) if n not in arrays]
        if missing:
            raise ValueError(f"array {missing[0]!r} is missing")
        feature, local, poses = (arrays[name] for name in (METRIC_FEATURES, LOCAL_MAPS, POSES))
        if feature.ndim != 2 or local.ndim != 4 or poses.shape[1:] != (4, 4) or not len(poses):
            raise ValueError(f"shapes {feature.shape}, {local.shape}, {poses.shape} are no map's")
        if not len(feature) == len(local) == len(poses):
            raise ValueError(f"{len(feature)}, {len(local)} and {len(poses)} images: not one map")
        R = poses[:, :3, :3].astype(np.float64)
        rigid = np.abs(R @ np.swapaxes(R, 1, 2) - np.eye(3)).max() < 1e-3
        rigid = rigid and bool((np.linalg.det(R) > 0.0).all())
        if not rigid or np.abs(poses[:, 3] - [0.0, 0.0, 0.0, 1.0]).max() > 0.0:
            raise ValueError(f"array {POSES!r} holds something that is not a rigid transform")
        return cls(feature.astype(np.float32), local, poses.astype(np.float64))

    def to_arrays(self) -> dict[str, NDArray]:
        """As they are stored: features in half precision, poses in full."""
        return {
            METRIC_FEATURES: self.metric_feature_ND.astype(np.float16),
            LOCAL_MAPS: self.local_NCHW,
            POSES: self.T_map_camera_N44,
        }

    @property
    def bytes_per_image(self) -> int:
        """What one image takes in the bundle: both features and the pose."""
        return sum(array[0].nbytes for array in self.to_arrays().values())

    def nearest(
        self, metric_feature_D: ArrayLike, count: int, allowed: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Indices of the `count` images with the most similar metric features, best first.

        allowed: indices to choose from; None for all.
        """
        feature = self.metric_feature_ND if allowed is None else self.metric_feature_ND[allowed]
        likeness = feature @ np.asarray(metric_feature_D, np.float32)
        count = min(count, len(likeness))
        best = np.argpartition(-likeness, count - 1)[:count]
        best = best[np.argsort(-likeness[best], kind="stable")]
        return best if allowed is None else allowed[best]

    def near(
        self,
        T_map_camera: Array,
        count: int,
        metres_per_radian: float,
        allowed: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int64]:
        """Indices of the `count` images that stand nearest to a pose, nearest first.

        The distance is metres plus `metres_per_radian` times the angle between the cameras. allowed:
        as in `nearest`.
        """
        poses = self.T_map_camera_N44 if allowed is None else self.T_map_camera_N44[allowed]
        metres = np.linalg.norm(poses[:, :3, 3] - T_map_camera[:3, 3], axis=1)
        radians = angles_between(poses[:, :3, :3], T_map_camera[:3, :3])
        distance = metres + metres_per_radian * radians
        best = np.argsort(distance, kind="stable")[:count]
        return best if allowed is None else allowed[best]

    def feature_distances(self, metric_feature_D: ArrayLike, index_K: NDArray[np.int64]) -> Array:
        """Length of the difference of unit features, 0..2, to the map images `index_K`: ``(K,)``."""
        feature = np.asarray(metric_feature_D, np.float32)
        chosen = self.metric_feature_ND[index_K].astype(np.float64)
        return np.linalg.norm(chosen - feature, axis=1)
