"""Metric features and poses of the map images of a bundle: how alike a live image is to the map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rgsiam_ros.geometry.poses import Array

METRIC_FEATURES = "metric_feature_ND"
POSES = "T_map_camera_N44"


@dataclass(frozen=True)
class MapFeatures:
    """Metric features and poses of N map images, in the order in which they were recorded."""

    metric_feature_ND: NDArray[np.float32]
    """Metric features ``(N, D)`` of unit length."""
    T_map_camera_N44: Array
    """Poses ``(N, 4, 4)`` of the camera's optical frame in the map frame, metres."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> MapFeatures:
        """Map features from the arrays of ``map_features.npz``.

        Raises ValueError, which says what is wrong, if arrays are missing or do not fit together.
        """
        missing = [n for n in (METRIC_FEATURES, POSES) if n not in arrays]
        if missing:
            raise ValueError(f"array {missing[0]!r} is missing")
        feature, poses = arrays[METRIC_FEATURES], arrays[POSES]
        if feature.ndim != 2 or poses.shape[1:] != (4, 4) or not len(poses):
            raise ValueError(
                f"{METRIC_FEATURES} and {POSES} have shapes {feature.shape} and {poses.shape}, which do not "
                "describe map images"
            )
        if len(feature) != len(poses):
            raise ValueError(
                f"{METRIC_FEATURES} and {POSES} hold {len(feature)} and {len(poses)} images: the numbers must "
                "be equal"
            )
        R = poses[:, :3, :3].astype(np.float64)
        rigid = np.abs(R @ np.swapaxes(R, 1, 2) - np.eye(3)).max() < 1e-3
        rigid = rigid and bool((np.linalg.det(R) > 0.0).all())
        if not rigid or np.abs(poses[:, 3] - [0.0, 0.0, 0.0, 1.0]).max() > 0.0:
            raise ValueError(f"array {POSES!r} holds a matrix that is not a rigid transform")
        return cls(feature.astype(np.float32), poses.astype(np.float64))

    def to_arrays(self) -> dict[str, NDArray]:
        """The arrays of ``map_features.npz``, by name: features in float16, poses in float64."""
        return {
            METRIC_FEATURES: self.metric_feature_ND.astype(np.float16),
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

    def feature_distances(self, metric_feature_D: ArrayLike, index_K: NDArray[np.int64]) -> Array:
        """Distances ``(K,)`` of a metric feature to those of the map images `index_K`.

        The distance is the length of the difference of unit vectors, 0 to 2.
        """
        feature = np.asarray(metric_feature_D, np.float32)
        chosen = self.metric_feature_ND[index_K].astype(np.float64)
        return np.linalg.norm(chosen - feature, axis=1)
