"""Images with the poses that the geometric branch must estimate for them, for an engine's self-test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_ros.geometry.poses import Array, pose_matrix, quaternion_wxyz

IMAGES = "view_NHW"
POSITION, ROTATION = "position_N3", "quaternion_wxyz_N4"


@dataclass(frozen=True)
class GoldenViews:
    """N grey images of the network's size. The poses are those of its float32 version in ONNX Runtime."""

    view_NHW: NDArray[np.uint8]
    T_points_camera_N44: Array
    """In the frame of the map's points."""

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray], preprocessing: Preprocessing
    ) -> GoldenViews:
        """Read the arrays of ``golden_views.npz``. Raises ValueError, which says what is wrong."""
        missing = [name for name in (IMAGES, POSITION, ROTATION) if name not in arrays]
        if missing:
            raise ValueError(f"array {missing[0]!r} is missing")
        view = arrays[IMAGES]
        size = (preprocessing.input_height, preprocessing.input_width)
        if view.dtype != np.uint8 or view.shape[1:] != size or not len(view):
            raise ValueError(
                f"views of shape {view.shape} and type {view.dtype} do not fit the network's input"
            )
        shapes = {POSITION: (len(view), 3), ROTATION: (len(view), 4)}
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise ValueError(f"array {name!r} has shape {arrays[name].shape}, not {shape}")
        return cls(view, pose_matrix(arrays[POSITION], arrays[ROTATION]))

    def to_arrays(self) -> dict[str, NDArray]:
        """The arrays of ``golden_views.npz``, by name."""
        return {
            IMAGES: self.view_NHW,
            POSITION: self.T_points_camera_N44[:, :3, 3],
            ROTATION: quaternion_wxyz(self.T_points_camera_N44),
        }
