"""Features and poses of the map images of a bundle, and the search for map images near a live image."""

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
    """Features and poses of N map images, in the order in which they were recorded."""

    metric_feature_ND: NDArray[np.float32]
    """Metric features ``(N, D)`` of unit length."""
    local_NCHW: NDArray[np.float16]
    """Local maps ``(N, C, h, w)``, inputs of the relative unit (`rgsiam_ros.bundle.network_io.MAP_LOCAL`)."""
    T_map_camera_N44: Array
    """Poses ``(N, 4, 4)`` of the camera's optical frame in the map frame, metres."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> MapFeatures:
        """Map features from the arrays of ``map_features.npz``.

        Raises ValueError, which says what is wrong, if arrays are missing or do not fit together.
        """
        missing = [n for n in (METRIC_FEATURES, LOCAL_MAPS, POSES) if n not in arrays]
        if missing:
            raise ValueError(f"array {missing[0]!r} is missing")
        feature, local, poses = (arrays[name] for name in (METRIC_FEATURES, LOCAL_MAPS, POSES))
        if feature.ndim != 2 or local.ndim != 4 or poses.shape[1:] != (4, 4) or not len(poses):
            raise ValueError(
                f"{METRIC_FEATURES}, {LOCAL_MAPS} and {POSES} have shapes {feature.shape}, {local.shape} and "
                f"{poses.shape}, which do not describe map images"
            )
        if not len(feature) == len(local) == len(poses):
            raise ValueError(
                f"{METRIC_FEATURES}, {LOCAL_MAPS} and {POSES} hold {len(feature)}, {len(local)} and "
                f"{len(poses)} images: the numbers must be equal"
            )
        R = poses[:, :3, :3].astype(np.float64)
        rigid = np.abs(R @ np.swapaxes(R, 1, 2) - np.eye(3)).max() < 1e-3
        rigid = rigid and bool((np.linalg.det(R) > 0.0).all())
        if not rigid or np.abs(poses[:, 3] - [0.0, 0.0, 0.0, 1.0]).max() > 0.0:
            raise ValueError(f"array {POSES!r} holds a matrix that is not a rigid transform")
        return cls(feature.astype(np.float32), local, poses.astype(np.float64))

    def to_arrays(self) -> dict[str, NDArray]:
        """The arrays of ``map_features.npz``, by name: features in float16, poses in float64."""
        return {
            METRIC_FEATURES: self.metric_feature_ND.astype(np.float16),
            LOCAL_MAPS: self.local_NCHW,
            POSES: self.T_map_camera_N44,
        }

    @property
    def bytes_per_image(self) -> int:
        """Bytes of one map image in the bundle, before compression."""
        return sum(array[0].nbytes for array in self.to_arrays().values())

    def nearest(
        self, metric_feature_D: ArrayLike, count: int, allowed: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Indices ``(count,)`` of the map images with the most similar metric *features*, best first.

        metric_feature_D: of the live image, unit length; allowed: indices to choose from, None for all.
        """
        feature = self.metric_feature_ND if allowed is None else self.metric_feature_ND[allowed]
        similarity = feature @ np.asarray(metric_feature_D, np.float32)
        count = min(count, len(similarity))
        best = np.argpartition(-similarity, count - 1)[:count]
        best = best[np.argsort(-similarity[best], kind="stable")]
        return best if allowed is None else allowed[best]

    def near(
        self,
        T_map_camera: Array,
        count: int,
        metres_per_radian: float,
        allowed: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int64]:
        """Indices ``(count,)`` of the map images whose *poses* are nearest to a pose, nearest first.

        T_map_camera: ``(4, 4)``, metres. The distance is metres plus `metres_per_radian` times the angle
        between the cameras. allowed: as in `nearest`.
        """
        poses = self.T_map_camera_N44 if allowed is None else self.T_map_camera_N44[allowed]
        metres = np.linalg.norm(poses[:, :3, 3] - T_map_camera[:3, 3], axis=1)
        radians = angles_between(poses[:, :3, :3], T_map_camera[:3, :3])
        distance = metres + metres_per_radian * radians
        best = np.argsort(distance, kind="stable")[:count]
        return best if allowed is None else allowed[best]

    def feature_distances(self, metric_feature_D: ArrayLike, index_K: NDArray[np.int64]) -> Array:
        """Distances ``(K,)`` of a metric feature to those of the map images `index_K`.

        The distance is the length of the difference of unit vectors, 0 to 2.
        """
        feature = np.asarray(metric_feature_D, np.float32)
        chosen = self.metric_feature_ND[index_K].astype(np.float64)
        return np.linalg.norm(chosen - feature, axis=1)
