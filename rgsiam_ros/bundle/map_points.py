"""The geometric branch's map: triangulated points, the map images that see them, and global features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.features.keypoints import DESCRIPTOR_SIZE, from_bytes
from rgsiam_ros.features.vlad import Vlad
from rgsiam_ros.geometry.poses import Array, pose_matrix, quaternion_wxyz

OFFSET, DESCRIPTOR = "offset_P3", "descriptor_PD"
"""Offset: of a point from the camera of the first map image that sees it. In half precision, its error is a
fixed share of that distance."""
CAMERA_POSITION, CAMERA_ROTATION = "camera_position_N3", "camera_quaternion_wxyz_N4"
GLOBAL = "global_feature_NG"
COUNT, STEP = "visible_count_N", "visible_step_V"
"""``visible`` as the number of points of each image, and for each point the step from the index before it."""
REMOVED = "removed_by_P"
"""Only if points were removed: 0 for a point in use, else the place of the session that removed it in the manifest."""
GLOBAL_SCALE = 127.0
NAMES = (OFFSET, DESCRIPTOR, CAMERA_POSITION, CAMERA_ROTATION, GLOBAL, COUNT, STEP)


@dataclass(frozen=True)
class MapPoints:
    """P points and N map images. Positions are in the frame of the map's points, see `Placement`."""

    position_P3: Array
    """Metres."""
    descriptor_PD: NDArray[np.int8]
    """See `rgsiam_ros.features.keypoints.to_bytes`."""
    T_points_camera_N44: Array
    """Poses of the map images' cameras."""
    global_feature_NG: NDArray[np.int8]
    """Global feature of each map image, a unit vector times 127."""
    visible: tuple[NDArray[np.int64], ...]
    """For each map image the indices of the points that it sees, rising."""
    vlad: Vlad
    removed_by_P: NDArray[np.uint8] | None = None
    """As `REMOVED`; None if all points are in use."""

    @cached_property
    def unit_descriptor_PD(self) -> NDArray[np.float32]:
        """The descriptors as unit vectors."""
        return from_bytes(self.descriptor_PD)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> MapPoints:
        """Read the arrays of ``map_points.npz``. Raises ValueError, which says what is wrong."""
        missing = [name for name in NAMES if name not in arrays]
        if missing:
            raise ValueError(f"array {missing[0]!r} is missing")
        P, N = (len(np.atleast_1d(arrays[name])) for name in (OFFSET, CAMERA_POSITION))
        vlad = Vlad.from_arrays(arrays)
        shapes = {
            OFFSET: (P, 3),
            DESCRIPTOR: (P, DESCRIPTOR_SIZE),
            CAMERA_POSITION: (N, 3),
            CAMERA_ROTATION: (N, 4),
            GLOBAL: (N, vlad.basis_EG.shape[1]),
            COUNT: (N,),
            STEP: (arrays[STEP].size,),
        }
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise ValueError(f"array {name!r} has shape {arrays[name].shape}, not {shape}")
        if not P or not N:
            raise ValueError("the map has no point, or no image")
        for name in (DESCRIPTOR, GLOBAL):
            if arrays[name].dtype != np.int8:
                raise ValueError(f"array {name!r} has type {arrays[name].dtype}, not int8")
        removed = arrays.get(REMOVED)
        if removed is not None and (removed.shape != (P,) or removed.dtype != np.uint8):
            raise ValueError(
                f"array {REMOVED!r} has shape {removed.shape} and type {removed.dtype}, not {(P,)} and uint8"
            )
        for name in (COUNT, STEP):
            if not np.issubdtype(arrays[name].dtype, np.integer):
                raise ValueError(f"array {name!r} does not hold integers")
        T = pose_matrix(arrays[CAMERA_POSITION], arrays[CAMERA_ROTATION])
        visible = _visible(arrays[COUNT].astype(np.int64), arrays[STEP].astype(np.int64), P)
        return cls(
            T[_first_images(visible, P), :3, 3] + arrays[OFFSET],
            np.ascontiguousarray(arrays[DESCRIPTOR]),
            T,
            arrays[GLOBAL],
            visible,
            vlad,
            removed if removed is not None and removed.any() else None,
        )

    def to_arrays(self) -> dict[str, NDArray]:
        """The arrays of ``map_points.npz``, by name. Raises ValueError if no image sees a point.

        The descriptors lie component after component, which compresses better.
        """
        first_P = self.first_images()
        offset = self.position_P3 - self.T_points_camera_N44[first_P, :3, 3]
        steps = [np.diff(points, prepend=0) for points in self.visible]
        removed = {} if self.removed_by_P is None else {REMOVED: self.removed_by_P}
        return {
            OFFSET: offset.astype(np.float16),
            DESCRIPTOR: np.asfortranarray(self.descriptor_PD),
            CAMERA_POSITION: self.T_points_camera_N44[:, :3, 3],
            CAMERA_ROTATION: quaternion_wxyz(self.T_points_camera_N44),
            GLOBAL: self.global_feature_NG,
            COUNT: np.array([len(points) for points in self.visible], np.int32),
            STEP: np.concatenate(steps).astype(np.int32),
            **removed,
            **self.vlad.to_arrays(),
        }

    def in_use(self) -> MapPoints:
        """Without the removed points; all map images are kept."""
        return self if self.removed_by_P is None else self.kept(self.removed_by_P == 0)

    def kept(self, kept_P: NDArray[np.bool_]) -> MapPoints:
        """Some of the points, and all map images. No point of the result counts as removed."""
        number = np.cumsum(kept_P) - 1
        return replace(
            self,
            position_P3=self.position_P3[kept_P],
            descriptor_PD=self.descriptor_PD[kept_P],
            visible=tuple(number[points[kept_P[points]]] for points in self.visible),
            removed_by_P=None,
        )

    def seen_by(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """Indices of the points that at least one of these map images sees, rising."""
        seen = np.zeros(len(self.position_P3), bool)
        for i in images:
            seen[self.visible[i]] = True
        return np.flatnonzero(seen)

    def nearest(
        self, T_points_camera: Array, count: int, allowed: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Indices of the map images nearest to a pose that face its way, nearest first.

        T_points_camera: ``(4, 4)`` in the points' frame, metres; allowed: map images to choose from, None for all.
        """
        index = np.arange(len(self.T_points_camera_N44)) if allowed is None else allowed
        camera_N44 = self.T_points_camera_N44[index]
        metres = np.linalg.norm(camera_N44[:, :3, 3] - T_points_camera[:3, 3], axis=1)
        facing = camera_N44[:, :3, 2] @ T_points_camera[:3, 2] > 0.0
        return index[np.argsort(np.where(facing, metres, np.inf), kind="stable")[:count]]

    def observations_P(self) -> NDArray[np.int64]:
        """Number of map images that see each point."""
        return np.bincount(np.concatenate(self.visible), minlength=len(self.position_P3))

    def first_images(self) -> NDArray[np.int64]:
        """The first map image that sees each point. Raises ValueError if no image sees a point."""
        return _first_images(self.visible, len(self.position_P3))

    def typical_distance_m(self) -> float:
        """Median distance of the points from the cameras that see them."""
        image_V = np.repeat(np.arange(len(self.visible)), [len(seen) for seen in self.visible])
        ray_V3 = self.position_P3[np.concatenate(self.visible)]
        ray_V3 = ray_V3 - self.T_points_camera_N44[image_V, :3, 3]
        return float(np.median(np.linalg.norm(ray_V3, axis=1)))

    def placed(self, T: Array) -> MapPoints:
        """The same points and cameras in another frame. T: ``(4, 4)`` pose of the points' frame in it."""
        return replace(
            self,
            position_P3=self.position_P3 @ T[:3, :3].T + T[:3, 3],
            T_points_camera_N44=T @ self.T_points_camera_N44,
        )


def global_bytes(feature_NG: NDArray[np.float32]) -> NDArray[np.int8]:
    """Global features ``(N, G)`` of unit length as 8-bit integers."""
    return np.rint(np.clip(feature_NG, -1.0, 1.0) * GLOBAL_SCALE).astype(np.int8)


def _visible(
    count_N: NDArray[np.int64], step_V: NDArray[np.int64], points: int
) -> tuple[NDArray[np.int64], ...]:
    if (count_N < 0).any() or count_N.sum() != len(step_V):
        raise ValueError(f"array {COUNT!r} and array {STEP!r} do not fit together")
    lists = []
    for steps in np.split(step_V, np.cumsum(count_N)[:-1]):
        indices = np.cumsum(steps)
        rising = (steps[1:] > 0).all() and (steps[:1] >= 0).all() and (steps < points).all()
        if not rising or indices.max(initial=0) >= points:
            raise ValueError(f"array {STEP!r} names a point that the map does not have")
        lists.append(indices)
    return tuple(lists)


def _first_images(visible: tuple[NDArray[np.int64], ...], points: int) -> NDArray[np.int64]:
    """The first image that sees each point."""
    image_V = np.repeat(np.arange(len(visible)), [len(seen) for seen in visible])
    seen_P, first_P = np.unique(np.concatenate(visible), return_index=True)
    if len(seen_P) != points:
        raise ValueError(f"{points - len(seen_P)} points are seen by no image")
    return image_V[first_P]
